"""What is known of the patients behind the images, and the sentences that follow from it. Imports nothing heavy."""

from typing import Literal

from clinprompt.records import RecordPart

Unit = Literal["patients", "images"]  # what is counted, and left out of an interval in turn


class PatientCount(RecordPart):
    """Of `images` images: the known patients, and the images `without` a known one."""

    images: int
    patients: int
    without: int

    @property
    def shown(self) -> int | None:
        """The number of patients where it is one; None where no patient is known."""
        return self.patients or None

    @property
    def counted(self) -> Unit:
        """What a sentence counts: images where no patient is known; one whose own is not known counts as a patient."""
        return "images" if self.without and not self.patients else "patients"

    @property
    def unit(self) -> str:
        """What intervals are over: "patients", "images", or both."""
        if not self.without:
            return "patients"
        return "images" if not self.patients else "patients (images where the patient is not known)"

    @property
    def warning(self) -> str | None:
        """What was not checked, and what that means for the numbers; None where every patient is known."""
        if not self.without:
            return None
        if not self.patients:
            return (
                "Not checked: the card names no patients. Images of one patient may lie in more than one split, and "
                "the intervals are over images: all numbers may be better than they would be on new "
                "patients."
            )
        return (
            f"Not checked for {self.without} of {self.images} images: their patient is not known. They may show a "
            "patient of another split, and the intervals take each of them for a patient of its own: the numbers may "
            "be better than they would be on new patients."
        )
