"""The recipes of the papers, by name; each says where it comes from.

*Read in the code* means the authors' published code; *stated* means the paper or its supplement;
*our reading* means that neither says it, and what we chose instead.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable

from tonsor.errors import RecipeError
from tonsor.train.recipe import Recipe

__all__ = ["RECIPES", "Recipe", "about", "named"]

RECIPES: dict[str, Recipe] = {}
_ABOUT: dict[str, str] = {}


def named(name: str) -> Recipe:
    """Return the recipe of this name."""
    if name not in RECIPES:
        near = difflib.get_close_matches(str(name), RECIPES, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(sorted(RECIPES))}"
        message = f"there is no recipe '{name}'; {hint}"
        raise RecipeError(message)
    return RECIPES[name]


def about(name: str) -> str:
    """Say what a recipe is for and where it comes from.

    >>> print(about("spsrc-finetune").splitlines()[0])
    Retraining after SPSRC's cut.
    """
    named(name)
    return _ABOUT[name]


def recipe(make: Callable[[], Recipe]) -> Callable[[], Recipe]:
    """Register what a function returns under the name of the function, with its docstring."""
    name = make.__name__.replace("_", "-")
    assert name not in RECIPES, name
    RECIPES[name] = make().but(name=name)
    _ABOUT[name] = inspect.cleandoc(make.__doc__ or "")
    return make


# ---------------------------------------------------------------- SPSRC


@recipe
def spsrc_base() -> Recipe:
    """Base training of SPSRC on CIFAR.

    Read in the code: 200 epochs, rate 0.1 times 0.2 at 60, 120 and 160, decay 5e-4, batch 128.
    """
    return Recipe(epochs=200, lr=0.1, steps=((60, 0.2), (120, 0.2), (160, 0.2)))


@recipe
def spsrc_finetune() -> Recipe:
    """Retraining after SPSRC's cut.

    Read in the code: a hundredth of the base rate for 80 epochs, the milestones of the base and a
    tenth more at 20 and 40. The paper uses 80 epochs for ResNet-110 at its second size.
    """
    return spsrc_base().but(epochs=80, lr=1e-3, steps=((20, 0.1), (40, 0.1), (60, 0.2)))


@recipe
def spsrc_finetune_short() -> Recipe:
    """Retraining of ResNet-110 at SPSRC's first size.

    Stated: 50 epochs. The rest is `spsrc-finetune`, of which the last milestone is not reached.
    """
    return spsrc_finetune().but(epochs=50, steps=((20, 0.1), (40, 0.1)))


@recipe
def spsrc_scratch() -> Recipe:
    """The cut architecture from random weights.

    Our reading: SPSRC does not train from scratch; this is `spsrc-base`.
    """
    return spsrc_base()


@recipe
def spsrc_imagenet() -> Recipe:
    """Retraining of ResNet-34 on ImageNet, from torchvision's weights.

    Read in the code: 30 epochs, rate 0.001, a tenth each 10, batch 256, decay 1e-4.
    """
    return Recipe(
        epochs=30, batch=256, lr=1e-3, weight_decay=1e-4, steps=((10, 0.1), (20, 0.1)), seed=8
    )


# ---------------------------------------------------------------- SPP


@recipe
def spp_base() -> Recipe:
    """Base training of SPP's ConvNet, which is Caffe's cifar10_full.

    Read in the code: 60k iterations of batch 100 at 0.001, 5k at a tenth, 5k at a hundredth, which
    are 120, 10 and 10 epochs of 50,000 images; decay 0.004, 250-fold for the classifier and none
    for its bias; biases learn twice as fast, but for the third convolution. No augmentation. The
    code's input is raw pixels less the mean image, which is a matter of the data and not done here.
    """
    return Recipe(
        epochs=140, batch=100, lr=1e-3, weight_decay=4e-3, augment=False,
        steps=((120, 0.1), (130, 0.1)),
        scales=(
            ("*.bias", 2.0, 1.0), ("conv3.bias", 1.0, 1.0),
            ("linear.weight", 1.0, 250.0), ("linear.bias", 2.0, 0.0),
        ),
    )  # fmt: skip


@recipe
def spp_finetune() -> Recipe:
    """Retraining after SPP has pruned.

    Our reading: the rate was not found; a tenth of the base rate, for as long as the base.
    """
    return spp_base().but(lr=1e-4)


@recipe
def spp_scratch() -> Recipe:
    """The cut ConvNet from random weights.

    Our reading: SPP does not train from scratch; this is `spp-base`.
    """
    return spp_base()


# ---------------------------------------------------------------- LayerPrune


@recipe
def layerprune_long() -> Recipe:
    """Training after layers are removed, for the comparison with Chen and Zhao.

    Stated: 160 epochs, rate 0.1, a tenth at 81 and 122. Decay and batch are those of the
    fine-tuning.
    """
    return Recipe(epochs=160, lr=0.1, weight_decay=1e-4, steps=((81, 0.1), (122, 0.1)))


@recipe
def layerprune_base() -> Recipe:
    """Base training of LayerPrune's CIFAR networks.

    Our reading: only their accuracy is stated. This is the schedule that the supplement states for
    the comparison with Chen and Zhao, `layerprune-long`.
    """
    return layerprune_long()


@recipe
def layerprune_finetune() -> Recipe:
    """Fine-tuning after layers or filters are removed, on CIFAR.

    Stated, and read in the code: 30 epochs, rate 0.001, a tenth each 10, decay 1e-4, batch 128.
    """
    return Recipe(epochs=30, lr=1e-3, weight_decay=1e-4, steps=((10, 0.1), (20, 0.1)))


@recipe
def layerprune_scratch() -> Recipe:
    """The shallow architecture from random weights, on CIFAR.

    Our reading: from scratch is stated for ImageNet only; this is `layerprune-long`.
    """
    return layerprune_long()


@recipe
def layerprune_imagenet_finetune() -> Recipe:
    """Fine-tuning after layers are removed, on ImageNet.

    Stated: 30 epochs, rate 0.001, a tenth each 10. The batch of 256 is our reading.
    """
    return layerprune_finetune().but(batch=256)


@recipe
def layerprune_imagenet_scratch() -> Recipe:
    """The shallow architecture from random weights, on ImageNet.

    Stated: 90 epochs, rate 0.1, a tenth each 30. Batch 256 and decay 1e-4 are our reading.
    """
    return Recipe(epochs=90, batch=256, lr=0.1, weight_decay=1e-4, steps=((30, 0.1), (60, 0.1)))


# ---------------------------------------------------------------- LFPC


@recipe
def lfpc_base() -> Recipe:
    """Base training of LFPC's CIFAR networks.

    There is no code of LFPC. Read in the code of FPGM, by the same group: 200 epochs, rate 0.1
    times 0.2 at 60, 120 and 160, decay 5e-4, Nesterov, batch 128.
    """
    return spsrc_base().but(nesterov=True)


@recipe
def lfpc_finetune() -> Recipe:
    """Fine-tuning after LFPC's search.

    Stated for FPGM: as the base, from a tenth of its rate.
    """
    return lfpc_base().but(lr=0.01)


@recipe
def lfpc_scratch() -> Recipe:
    """Training from random weights, with filters zeroed at the end of each epoch or removed.

    Stated for FPGM: the schedule of the base.
    """
    return lfpc_base()


@recipe
def lfpc_resnet110_base() -> Recipe:
    """Base training of ResNet-110, which starts at a tenth of the rate for one epoch.

    Read in the code of FPGM.
    """
    return lfpc_base().but(lr=0.01, steps=((1, 10.0), (60, 0.2), (120, 0.2), (160, 0.2)))


@recipe
def lfpc_resnet110_finetune() -> Recipe:
    """Fine-tuning of ResNet-110, which starts at a tenth of the rate for one epoch.

    Read in the code of FPGM.
    """
    return lfpc_resnet110_base().but(lr=1e-3)


@recipe
def lfpc_search() -> Recipe:
    """The steps of the weights while LFPC searches; the sampler has an optimizer of its own.

    Our reading, from TAS, whose search has the same form: cosine from 0.1 to 0, Nesterov, decay
    5e-4, batch 256, on one half of the training images. TAS searches for 300 epochs with 5 of
    warm-up; LFPC does not say for how long, and we take 200.
    """
    return Recipe(
        epochs=200, batch=256, lr=0.1, nesterov=True, schedule="cosine", warmup=5, choose="last"
    )


@recipe
def lfpc_imagenet() -> Recipe:
    """Training on ImageNet from random weights.

    Read in the code of FPGM: 100 epochs, rate 0.1, a tenth each 30, batch 256. Decay 1e-4 is our
    reading.
    """
    return Recipe(
        epochs=100, batch=256, lr=0.1, weight_decay=1e-4,
        steps=((30, 0.1), (60, 0.1), (90, 0.1)),
    )  # fmt: skip


@recipe
def lfpc_imagenet_finetune() -> Recipe:
    """Fine-tuning on ImageNet from trained weights.

    Read in the code of FPGM: as `lfpc-imagenet`, from a tenth of its rate.
    """
    return lfpc_imagenet().but(lr=0.01)


# ---------------------------------------------------------------- SWP


@recipe
def swp_train() -> Recipe:
    """Training with a filter skeleton; what is left is converted without fine-tuning.

    Read in the code: 160 epochs, rate 0.1, a tenth at 80 and 120, decay 1e-4, batch 64, seed 1.
    The supplement says of an already pruned network only that it is trained on; use this too.
    """
    return Recipe(
        epochs=160, batch=64, lr=0.1, weight_decay=1e-4, steps=((80, 0.1), (120, 0.1)), seed=1
    )


@recipe
def swp_base() -> Recipe:
    """Base training of SWP's networks, without a skeleton.

    Read in the code: the same as `swp-train`.
    """
    return swp_train()


@recipe
def swp_finetune() -> Recipe:
    """Fine-tuning a network that SWP has cut.

    Our reading: SWP does not fine-tune. A tenth of its rate, on its own schedule.
    """
    return swp_train().but(lr=0.01)


@recipe
def swp_scratch() -> Recipe:
    """The cut architecture from random weights.

    Our reading: SWP does not train from scratch; this is `swp-train`.
    """
    return swp_train()


# ---------------------------------------------------------------- what they are compared with


@recipe
def li_finetune() -> Recipe:
    """Fine-tuning after Li et al. (2017) remove filters by L1 norm.

    Read in the code of rethinking-network-pruning: 40 epochs at 0.001. Decay 1e-4 and batch 64 are
    our reading.
    """
    return Recipe(epochs=40, batch=64, lr=1e-3, weight_decay=1e-4)


@recipe
def slimming_train() -> Recipe:
    """Training with L1 on the scales of BatchNorm, and fine-tuning after (Liu et al., 2017).

    Read in the code of rethinking-network-pruning: 160 epochs, rate 0.1, a tenth at a half and at
    three quarters, batch 64, decay 1e-4.
    """
    return Recipe(epochs=160, batch=64, lr=0.1, weight_decay=1e-4, steps=((80, 0.1), (120, 0.1)))


@recipe
def gbn_finetune() -> Recipe:
    """Fine-tuning after Gate Decorator has pruned (You et al., 2019).

    Read in the code: 40 epochs, the rate a triangle from 0.001 to 0.01 and back, batch 64, and no
    momentum, which is odd but so. Decay 5e-4 is that of the base training.
    """
    return Recipe(epochs=40, batch=64, lr=0.01, lr_end=1e-3, schedule="triangular", momentum=0.0)


@recipe
def fair_finetune() -> Recipe:
    """One schedule for every method, where methods are compared.

    Stated in "Why is the state of pruning so confusing": with rate 0.01, steps and 90 epochs, plain
    L1 equals most later methods. The steps, a tenth each 30, are our reading.
    """
    return Recipe(epochs=90, lr=0.01, steps=((30, 0.1), (60, 0.1)))
