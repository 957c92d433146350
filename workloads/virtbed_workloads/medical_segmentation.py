"""Application that segments the brain in scans of a head whose brain mask is known.

A request is a NIfTI file, compressed or not; the answer is a mask on the scan's own grid.

Scale ``trained``: deepbrain's 3D U-Net on the whole head at 128 x 128 x 128 voxels. Scale
``mlperf``: a 3D U-Net on a sliding window, as in MLPerf, with a quarter of MLPerf's filters and
seeded weights. Scale ``tiny``: the same with a few filters, on coarse scans. Seeded weights give
meaningless answers; the expected answers were recorded once on bare metal, as a regression check.

All scans show one head, ``ch2`` of Debian's mricron-data (average of 27 scans: Holmes et al., 1998,
doi 10.1097/00004728-199803000-00032), on several grids.
"""

from __future__ import annotations

import gzip
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import ClassVar

import nibabel
import numpy as np
from nibabel import orientations
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray
from scipy import ndimage, signal

from virtbed_workloads import backend
from virtbed_workloads.contract import Application, ApplicationError, Check, Description
from virtbed_workloads.models import unet
from virtbed_workloads.models.seeded import seed_weights
from virtbed_workloads.packaged import debian_file

Volume = NDArray[np.float32]
"""Brightness per voxel; axes from left to right, back to front, foot to head."""
Mask = NDArray[np.bool_]
UNREADABLE = (ImageFileError, HeaderDataError, WrapStructError)  # nibabel's errors
LEAST_SIDE = 16  # voxels
LARGEST_MM = 600  # longest side that is resampled; a wrong affine could otherwise fill the memory
LEAST_DICE = 0.9


@dataclass(frozen=True)
class Scan:
    """An input's grid, derived from the published scan."""

    coarser: int = 1
    """Edge of a voxel in mm; the published scan has 1 mm."""
    axes: str = "RAS"
    """Direction in which each axis of the file grows, as in nibabel's ``aff2axcodes``."""
    compressed: bool = True


SCANS = {
    "head-1mm.nii.gz": Scan(),
    "head-2mm.nii.gz": Scan(coarser=2),
    "head-3mm.nii": Scan(coarser=3, axes="LPS", compressed=False),
    "head-sagittal.nii": Scan(axes="ASR", compressed=False),
}
TINY_SCANS = {
    "head-4mm.nii.gz": Scan(coarser=4),
    "head-coronal.nii": Scan(coarser=5, axes="RSA", compressed=False),
}


def head(name: str) -> nibabel.Nifti1Image:
    """Read a volume of the published head: ``ch2`` (whole) or ``ch2bet`` (brain only)."""
    return nibabel.load(debian_file("mricron-data", f"mricron/templates/{name}.nii.gz"))


def derive(image: nibabel.Nifti1Image, scan: Scan) -> nibabel.Nifti1Image:
    """Put a volume on a scan's grid: average cubes of voxels, round to int16, reorient the axes."""
    edge = scan.coarser
    data = np.asarray(image.dataobj)
    whole = data[tuple(slice(size // edge * edge) for size in data.shape)]
    cubes = whole.reshape([part for size in whole.shape for part in (size // edge, edge)])
    means = np.rint(cubes.mean(axis=(1, 3, 5))).astype("int16")
    affine = image.affine @ np.diag([edge, edge, edge, 1.0])
    affine[:3, 3] = image.affine[:3, :3] @ np.full(3, (edge - 1) / 2) + image.affine[:3, 3]
    derived = nibabel.Nifti1Image(means, affine)
    turn = orientations.ornt_transform(
        orientations.io_orientation(affine), orientations.axcodes2ornt(scan.axes)
    )
    return derived.as_reoriented(turn)


def encode(scan: Scan) -> bytes:
    """Return the file of a scan of the head."""
    content: bytes = derive(head("ch2"), scan).to_bytes()
    return gzip.compress(content, mtime=0) if scan.compressed else content


@dataclass(frozen=True)
class Geometry:
    """The grid of a scan."""

    shape: tuple[int, ...]
    """Shape on canonical axes."""
    affine: NDArray[np.float64]
    """Affine from voxels of the file to millimetres."""
    back: NDArray[np.float64]
    """nibabel orientation that turns canonical axes to those of the file."""


@dataclass(frozen=True)
class Features:
    """The network's input, and the grid of its scan."""

    volume: Volume
    geometry: Geometry


@dataclass(frozen=True)
class Outputs:
    """The network's output, one value per voxel or per voxel and class, and the scan's grid."""

    values: NDArray[np.float32]
    geometry: Geometry


@dataclass(frozen=True)
class Answer:
    """The brain, on the grid of the scan's file."""

    mask: Mask
    affine: NDArray[np.float64]


def decode(request: bytes) -> tuple[Volume, NDArray[np.float64], Geometry]:
    """Decode a NIfTI file.

    Returns:
        The volume on canonical axes; the edges of its voxels in mm, (3,); its grid.

    Raises:
        ApplicationError: The request is not a NIfTI file, is truncated, or holds no volume of
            three axes.
    """
    try:
        content = gzip.decompress(request) if request[:2] == b"\x1f\x8b" else request
        image = nibabel.Nifti1Image.from_bytes(content)
        if len(image.shape) != 3 or min(image.shape) < LEAST_SIDE:
            raise ApplicationError(
                f"a volume of shape {tuple(map(int, image.shape))} found; three axes of at least "
                f"{LEAST_SIDE} voxels are needed"
            )
        data = np.asarray(image.dataobj, "float32")
    except (*UNREADABLE, EOFError, OSError, TypeError, ValueError, zlib.error) as error:
        raise ApplicationError(
            f"{len(request)} bytes found that are no whole NIfTI file ({error}); "
            "a .nii or .nii.gz file is needed"
        ) from error
    if not np.isfinite(image.affine).all() or not np.linalg.det(image.affine[:3, :3]):
        raise ApplicationError("a grid without extent found; an affine of full rank is needed")
    own = orientations.io_orientation(image.affine)
    canonical = orientations.axcodes2ornt("RAS")
    turned = orientations.apply_orientation(data, orientations.ornt_transform(own, canonical))
    volume = np.ascontiguousarray(turned)
    if not np.isfinite(volume).all() or not volume.max() > volume.min():
        raise ApplicationError("no finite range of brightness found; a scan of a head is needed")
    edges = nibabel.affines.voxel_sizes(image.affine)[own[:, 0].argsort()]
    back = orientations.ornt_transform(canonical, own)
    return volume, edges, Geometry(volume.shape, image.affine, back)


def resample(volume: Volume, shape: tuple[int, ...]) -> Volume:
    """Resample a volume to another shape over the same space; smooth axes that shrink first."""
    factors = np.array(volume.shape) / shape
    blur = np.maximum(0, (factors - 1) / 2)
    if blur.any():
        volume = ndimage.gaussian_filter(volume, blur, mode="nearest")
    return np.asarray(ndimage.zoom(volume, 1 / factors, order=1, mode="nearest", grid_mode=True))


def largest_part(mask: Mask) -> Mask:
    """Keep the largest connected component of a mask."""
    parts, number = ndimage.label(mask)
    if number < 2:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())


def dice(mask: Mask, other: Mask) -> float:
    """Return the Dice coefficient of two masks (Dice, 1945); 1 for two empty ones.

    Twice the shared volume divided by the sum of both volumes.
    """
    total = mask.sum() + other.sum()
    return float(2 * (mask & other).sum() / total) if total else 1.0


class MedicalSegmentation(Application):
    """The part that all scales share: requests, and the mask on the scan's grid."""

    version: ClassVar[str] = "1"
    scans: ClassVar[Mapping[str, Scan]] = SCANS

    def inputs(self) -> Mapping[str, bytes]:
        """Encode the scans as files."""
        return {name: encode(scan) for name, scan in self.scans.items()}

    def postprocess(self, outputs: Outputs) -> Answer:
        """Mark the brain, keep its largest component, and reorient it to the axes of the file."""
        mask = largest_part(self.mark(outputs.values, outputs.geometry.shape))
        turned = orientations.apply_orientation(mask, outputs.geometry.back)
        return Answer(np.ascontiguousarray(turned), outputs.geometry.affine)

    @abstractmethod
    def mark(self, values: NDArray[np.float32], shape: tuple[int, ...]) -> Mask:
        """Turn the network's values into a mask on canonical axes."""

    def describe(self, answer: Answer) -> str:
        """Return the mask's volume, rounded to 0.1 l, and its centre, rounded to 1 cm."""
        if not answer.mask.any():
            return "nothing"
        litres = answer.mask.sum() * abs(np.linalg.det(answer.affine[:3, :3])) / 1e6
        voxel = ndimage.center_of_mass(answer.mask)
        place = nibabel.affines.apply_affine(answer.affine, voxel)
        return f"{litres:.1f} l about {':'.join(str(round(v / 10)) for v in place)} cm"


class SkullStrip(MedicalSegmentation):
    """deepbrain's network: scale ``trained``."""

    def load(self) -> Description:
        """Build the network with its published weights."""
        side = unet.STRIP_SIDE
        self._call = backend.compiled(unet.trained_strip(), [((1, side, side, side, 1), "float32")])
        return Description(model="deepbrain 3D U-Net", weights="trained")

    def preprocess(self, request: bytes) -> Features:
        """Decode, resample without keeping the proportions, and scale to [0, 1].

        Raises:
            ApplicationError: The request is not a whole NIfTI file with one volume.
        """
        volume, _, geometry = decode(request)
        volume = resample(volume, (unet.STRIP_SIDE,) * 3)
        low, high = volume.min(), volume.max()
        return Features((volume - low) / (high - low), geometry)

    def infer(self, features: Features) -> Outputs:
        """Run the network on the whole head."""
        values = self._call(features.volume[np.newaxis, ..., np.newaxis])
        return Outputs(np.asarray(values)[0, ..., 0], features.geometry)

    def mark(self, values: NDArray[np.float32], shape: tuple[int, ...]) -> Mask:
        """Resample the likelihoods to the scan's grid; mark those above 0.5."""
        return resample(values, shape) > 0.5

    def check(self, name: str, answer: Answer) -> Check:
        """Compare with the published mask on the same grid; the score is the Dice coefficient."""
        known = np.asarray(derive(head("ch2bet"), self.scans[name]).dataobj) > 0
        score = dice(answer.mask, known)
        return Check(score >= LEAST_DICE, f"Dice {LEAST_DICE} or more", round(score, 4))


class SlidingUNet(MedicalSegmentation):
    """A 3D U-Net over overlapping windows, seeded: scale ``mlperf``."""

    model: ClassVar[str] = "3D U-Net (base 8)"
    side: ClassVar[int] = 128  # voxels of a window; windows overlap by at least half
    spacing: ClassVar[float] = 1.2  # mm between voxels
    filters: ClassVar[tuple[int, ...]] = (8, 16, 32, 64, 80, 80)  # a quarter of MLPerf's
    classes: ClassVar[int] = 3
    seed: ClassVar[int] = 3  # the answers below are valid for this seed only, with clear margins
    answers: ClassVar[Mapping[str, str]] = {
        "head-1mm.nii.gz": "2.4 l about 0:-2:1 cm",
        "head-2mm.nii.gz": "2.6 l about 0:-2:1 cm",
        "head-3mm.nii": "2.0 l about 0:-1:1 cm",
        "head-sagittal.nii": "2.4 l about 0:-2:1 cm",
    }

    def load(self) -> Description:
        """Build the network with seeded weights, and the weights of the voxels in a window."""
        network = unet.build(self.side, self.filters, self.classes)
        seed_weights(network, self.seed)
        shape = (1, self.side, self.side, self.side, 1)
        self._call = backend.compiled(lambda x: network(x) * self._weights, [(shape, "float32")])
        return Description(model=self.model, weights="seeded")

    @cached_property
    def _weights(self) -> NDArray[np.float32]:
        """Gaussian weights, because voxels near a window's edge lack context; as in nnU-Net."""
        line = signal.windows.gaussian(self.side, self.side / 8)
        cube = line[:, None, None, None] * line[:, None, None] * line[:, None]
        return np.maximum(cube, 1e-3).astype("float32")

    def preprocess(self, request: bytes) -> Features:
        """Decode, resample to `spacing`, standardize, and pad to at least one window.

        Raises:
            ApplicationError: The request is not a whole NIfTI file with one volume.
        """
        volume, edges, geometry = decode(request)
        extent = np.array(volume.shape) * edges
        if extent.max() > LARGEST_MM:
            raise ApplicationError(
                f"a volume of {extent.max():.0f} mm found; a scan of a head is needed, "
                f"of {LARGEST_MM} mm at most"
            )
        shape = np.maximum(1, np.rint(extent / self.spacing)).astype(int)
        volume = resample(volume, tuple(shape.tolist()))
        volume = (volume - volume.mean()) / volume.std()
        missing = [(0, max(0, self.side - size)) for size in volume.shape]
        return Features(np.pad(volume, missing, constant_values=volume.min()), geometry)

    def infer(self, features: Features) -> Outputs:
        """Run the network on each window, and sum the weighted outputs."""
        total = np.zeros((*features.volume.shape, self.classes), "float32")
        for window in self._windows(features.volume.shape):
            total[window] += self._call(features.volume[window][np.newaxis, ..., np.newaxis])[0]
        return Outputs(total, features.geometry)

    def _windows(self, shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
        for corner in product(*(self._starts(size) for size in shape)):
            yield tuple(slice(start, start + self.side) for start in corner)

    def _starts(self, size: int) -> list[int]:
        """Return the starts of evenly spaced windows that overlap by at least half."""
        number = 1 + -(-(size - self.side) // (self.side // 2))
        return [round(start) for start in np.linspace(0, size - self.side, number).tolist()]

    def mark(self, values: NDArray[np.float32], shape: tuple[int, ...]) -> Mask:
        """Mark the voxels whose likeliest class is the last one, on the scan's grid."""
        last = values.argmax(axis=-1) == self.classes - 1
        return resample(last.astype("float32"), shape) > 0.5

    def check(self, name: str, answer: Answer) -> Check:
        """Compare with the answer recorded for the seeded weights."""
        expected = self.answers[name]
        return Check(self.describe(answer) == expected, expected)


class TinyUNet(SlidingUNet):
    """A few filters on coarse scans, seeded: scale ``tiny``."""

    model = "3D U-Net (tiny)"
    scans = TINY_SCANS
    side = 16
    spacing = 8.0
    filters = (2, 4)
    seed = 8
    answers: ClassVar[Mapping[str, str]] = {
        "head-4mm.nii.gz": "3.3 l about 0:-2:2 cm",
        "head-coronal.nii": "3.4 l about 0:-2:2 cm",
    }
