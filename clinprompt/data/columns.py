"""The names in a manifest: its columns and its splits."""

SPLITS = ("train", "val", "test")
NOVEL = "novel"  # the split of test images of the card's novel classes: no other split holds an image of these
COLUMNS = ("path", "id", "file", "label", "split", "patient", "site", "sex", "age", "modality")
# What the headers of DICOM files tell, in datasets that have such; the study may be told by a table or a folder, too.
OF_DICOM = ("study", "series", "pixel_spacing", "identifying_fields", "burned_in_annotation")
NUMBERS = ("age", "pixel_spacing")  # all other columns are text
FOLD = "fold"  # of each row outside the test split, from "0"; there where the card's rule makes folds
