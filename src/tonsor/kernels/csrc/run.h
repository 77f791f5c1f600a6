// The three ways to convolve; each is in a file of its own.
#pragma once

#include "packed.h"

namespace tonsor {

// `half`: inputs and outputs are bfloat16. Sums are in float either way.
void run_stripes(const Call& call, bool half);
void run_panels(const Call& call, bool half);
void run_dots(const Call& call, bool half);

}  // namespace tonsor
