"""What each picture is, how it was made, and what it does not show."""

from dataclasses import dataclass

from clinprompt.understanding.intervention import Change
from clinprompt.understanding.space import Planes


@dataclass(frozen=True)
class Caption:
    """A title and a paragraph."""

    title: str
    text: str


def attention(template: str) -> Caption:
    """For the maps before and after."""
    return Caption(
        "Where the evidence for an image's class enters",
        "Test images drawn at random, not picked: as the model sees them, and bright where a patch speaks for the "
        f"image's true class, before tuning (the frozen model with “{template}”) and after. The number is the "
        "probability that the model gives the true class, without the temperature that it is served with. Made after "
        "Grad-ECLIP (arXiv 2502.18816): what each patch "
        "hands to the last attention of the image tower, times the gradient of the class's log-odds, with the model's "
        "own attention weights. Each map is scaled to its own brightest patch, so compare places, not brightness. It "
        "does not show what happens when a patch is taken away, what speaks against the class, or what earlier layers "
        "have carried from one patch to another: a bright patch need not hold the finding, and a map on the finding "
        "is no proof that the model knows it.",
    )


def regions(images: int) -> Caption:
    """For the table of shares."""
    return Caption(
        "Evidence inside the marked regions",
        "The share of the maps above that lies inside the regions in which the dataset says that its classes show, "
        f"mean over {images} test images, before and after tuning; beside it the share that these regions have of the "
        "head, which is what a map without any preference gives. A map is as coarse as the patches: a region much "
        "smaller than a patch can't be told from what surrounds it.",
    )


def space(planes: Planes, images: int) -> Caption:
    """For the images and texts in the plane."""
    if planes.shared:
        same = "Tuning leaves the image features as they are: both panels are one plane, and only the stars move."
    else:
        same = (
            "Tuning changes the image features: each panel is a projection of its own, and places in one say nothing "
            "about places in the other."
        )
    stars = ""
    if any(texts is not None for texts in planes.texts):
        stars = "Stars are the classes' text features; those that coincide stand side by side. "
    if planes.texts[1] is None:
        stars += "After tuning there are none: the classes have weights of their own. "
    how = "t-SNE (van der Maaten and Hinton, 2008)" if planes.how == "t-SNE" else "the first two principal components"
    return Caption(
        "Images and classes in feature space",
        f"{images} test images, coloured by their true class, before and after tuning. {same} {stars}Made by "
        f"{how} of unit features, images and texts each centred first, because they lie in two separate cones (arXiv "
        "2203.02053). It does not show how far apart groups are, nor where the model draws its borders: only "
        "neighbourhoods carry meaning, and the nearest star is not always the predicted class.",
    )


def intervention(change: Change) -> Caption:
    """For CILMP's heat map."""
    low, high = change.rows
    rows = f"{low}" if low == high else f"{low} to {high}"
    return Caption(
        "How far the language model's states are bent",
        f"CILMP (arXiv 2511.12639) turns the {rows} rows of a class's states into prompts, and bends the first and the "
        "last ones by the image at hand. Left and middle: ‖Φ(h, v) - h‖ / ‖h‖, the mean over classes and test images, "
        "for each layer of the text tower, with the random values from which training starts and after it; the start "
        "is not 0, so only the difference was learned. Right: how much Φ differs between images (root mean square "
        "around its mean) relative to the same length, on a scale of its own. Rows in between are never changed. When "
        "the states are those of all layers, row k is layer k of the language model. It does not show whether a change "
        "helps: a long step in a direction that the next matrix ignores has no effect.",
    )


def descriptions(method: str, images: int) -> Caption:
    """For the table of sentences."""
    return Caption(
        "What each description does for its class",
        f"Each sentence that {method} was taught by, left out of its class's teacher once: own is by how much it "
        "raises the log-odds of the class on validation images of the class, others the same on all other images, net "
        "the difference (above 0: it helps to tell the class apart), turned the angle in degrees by which it turns the "
        f"teacher. {images} validation images; a dash where a class has a single sentence. The table is about the "
        "teacher, the mean of the sentences' features: it does not show what the tuned model would be without a "
        "sentence, which takes tuning again, nor whether the sentence is medically right.",
    )
