// The three ways to convolve; each is in a file of its own.
#pragma once

#include "packed.h"

namespace tonsor {

// `half`: inputs and outputs are bfloat16. Sums are in float either way. They return what is wrong.
Wrong run_stripes(const Call& call, bool half);
Wrong run_panels(const Call& call, bool half);
Wrong run_dots(const Call& call, bool half);

}  // namespace tonsor
