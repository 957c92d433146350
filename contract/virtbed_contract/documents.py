"""The documents that controller, roles and image exchange, as frozen dataclasses.

Lists of CPUs and memory nodes are kernel lists ("0-2,5"). Names end in their unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Optional

from .codec import described
from .factors import NAME, default_of

KERNEL_LIST = r"^([0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)?$"
DIGEST = r"^sha256:[0-9a-f]{64}$"
IMAGE_NAME = r"^[0-9a-f]{16}$"
SWEEP_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,100}$"  # one part of a path
TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z$"
BARE = ("metal", "process")
"""Machine and enclosure of bare metal, with which the others are compared."""
MARK = r"^[.,ov^<>1-4sp*hH+xDdP8X|_]$"


def image_name(digest: str) -> str:
    """Return the name of an image's folder and of its copies in stores: 16 digits of its digest."""
    return digest[len("sha256:") :][:16]


@dataclass(frozen=True)
class HostKernel:
    """The kernel that a host runs, as a guest on it may boot it."""

    release: str = described("As `uname -r` says it.", min_length=1)
    version: str = described("As `uname -v` says it: which build of the release.", min_length=1)
    file: str = described("Its file on the host.", min_length=1)
    digest: str = described("Digest of the file.", pattern=DIGEST)
    modules: str = described("Folder of its modules on the host.", min_length=1)
    config: str = described("File of its configuration on the host.", min_length=1)


@dataclass(frozen=True)
class InstanceGpu:
    """The GPU of an instance: what a guest is passed, and what a process on the host is given."""

    uuid: Optional[str] = described("Its UUID; null where the host's driver does not tell.")
    functions: tuple[str, ...] = described(
        "PCI addresses that a guest is passed: the GPU, then the other functions of its card.",
        min_items=1,
    )
    window_mib: int = described("Addresses that a guest must have for its memory.", minimum=1)
    nodes: tuple[str, ...] = described("Device nodes by which a process on the host uses it.")
    libraries: dict[str, str] = described(
        "Libraries of its driver on the host: the name that is loaded, and the file."
    )


@dataclass(frozen=True)
class GuestNode:
    """One memory node of a guest."""

    host: int = described("The host's node that its memory is bound to.", minimum=0)
    vcpus: str = described("Its vCPUs, numbered as in the grid.", pattern=KERNEL_LIST)
    memory_mib: int = described("Its memory.", minimum=1)
    distances: tuple[int, ...] = described(
        "To each node of the guest, as the host's firmware has them; 0 where it does not tell."
    )


@dataclass(frozen=True)
class GuestShape:
    """The grid of a guest's CPUs: sockets of cores of threads, as the host's CPUs are arranged.

    A vCPU's number is its place: (socket * cores + core) * threads + thread. Places without a vCPU
    are left empty, so that caches and cores are shared as on the host.
    """

    sockets: int = described("Sockets.", minimum=1)
    cores: int = described("Places for cores, per socket.", minimum=1)
    threads: int = described("Places for threads, per core.", minimum=1)
    vcpus: tuple[int, ...] = described("The places of the vCPUs, in the order of `cpu_ids`.")
    nodes: tuple[GuestNode, ...] = described(
        "Memory nodes; empty where there is one, which needs no description."
    )


@dataclass(frozen=True)
class Neighbour:
    """Where an instance runs that is like a measured one, and runs the same application meanwhile.

    Its CPUs are none of the measured ones; the caches and the memory are shared.
    """

    cpus: str = described("Host CPUs that it runs on.", pattern=KERNEL_LIST)
    mems: str = described("Host memory nodes that it is bound to.", pattern=KERNEL_LIST)
    shares: str = described(
        "The smallest part of the machine that it shares with the measured instance: core, such as "
        "L2 or L3, node, package, machine.",
        min_length=1,
    )
    housekeeping: bool = described(
        "Whether helpers and the controller run on its CPUs, too: the host has no others left."
    )


@dataclass(frozen=True)
class Instance:
    """One provisioned platform of one size and mode, on one host: ``virtbed_instance`` of roles.

    `inner_*` and `seen_*` are numbered as the machine numbers them: a guest's CPUs begin at 0,
    whichever CPUs of the host carry them.
    """

    id: str = described("Names all that is made for the instance, after the prefix virtbed-.")
    platform: str = described("Name of the platform, as in platforms.yml.", pattern=f"^{NAME}$")
    machine: str = described("What the kernel runs on: the role machine_NAME.")
    enclosure: str = described("What the process runs in: the role enclosure_NAME.")
    own_kernel: bool = described("Whether the machine runs a kernel of its own: a guest.")
    private_kernel: bool = described(
        "Whether the enclosure answers system calls by a kernel of its own."
    )
    mode: Literal["vanilla", "pinned"] = described("How the share of CPUs is enforced.")
    enclosure_limit: Literal["none", "quota", "set"] = described(
        "How the enclosure limits CPUs in this mode."
    )
    cores: int = described("CPUs of the instance.", minimum=1)
    memory_mib: int = described("Memory of the instance.", minimum=1)
    accelerator: Literal["none", "kvm", "tcg"] = described("What runs the guest; none on metal.")
    cpus: str = described("Host CPUs that a pinned instance runs on.", pattern=KERNEL_LIST)
    cpu_ids: tuple[int, ...] = described(
        "The same, one number per CPU, in the order in which a machine numbers them."
    )
    mems: str = described("Host memory nodes of a pinned instance.", pattern=KERNEL_LIST)
    housekeeping: str = described(
        "Host CPUs for emulator threads, daemons and the controller.", pattern=KERNEL_LIST
    )
    allowed: str = described(
        "Every host CPU that is online while the instance lives.", pattern=KERNEL_LIST
    )
    inner_cpus: str = described("`cpus`, as the machine numbers them.", pattern=KERNEL_LIST)
    inner_mems: str = described("`mems`, as the machine numbers them.", pattern=KERNEL_LIST)
    inner_allowed: str = described("Every CPU of the machine.", pattern=KERNEL_LIST)
    seen_cpus: str = described(
        "CPUs that a process of the instance must be allowed on.", pattern=KERNEL_LIST
    )
    quota_cpus: Optional[float] = described(
        "CPU quota that binds a process of the instance, in CPUs; null for none.", above=0
    )
    seen_quota_cpus: Optional[float] = described(
        "The same, as a process of the instance reads it; null where it is hidden.", above=0
    )
    image_digest: str = described("Digest of the image that the instance runs.", pattern=DIGEST)
    image_name: str = described("The image's folder and tag in stores.", pattern=IMAGE_NAME)
    factors: dict[str, str] = described(
        "The value of each factor of the instance, by the factor's name.", factory=dict
    )
    kernel: Optional[HostKernel] = described(
        "The host's kernel, where its guest boots that; null for the image's.", default=None
    )
    shape: Optional[GuestShape] = described(
        "The shape that a guest's CPUs have; null for a flat one, every CPU a socket of its own.",
        default=None,
    )
    gpu: Optional[InstanceGpu] = described("Its GPU; null for none.", default=None)
    placement: tuple[str, ...] = described(
        "Why `cpus`, `mems` and `housekeeping` were chosen; empty where nothing is pinned.",
        default=(),
    )
    host_emulated: bool = described(
        "Whether the bench host is itself emulated: nothing that is timed on it is a figure.",
        default=False,
    )
    neighbours: tuple[Neighbour, ...] = described(
        "Where the instances next to it run, in order; empty without any.", default=()
    )


@dataclass(frozen=True)
class TrialRequest:
    """One trial as it is asked for: ``virtbed_trial`` of roles."""

    id: str = described("The trial's id.")
    argv: tuple[str, ...] = described("The application and its arguments.", min_items=1)
    thread_policy: str = described("The thread policy that the application must confirm.")
    isa: tuple[str, ...] = described("Instruction-set extensions that the application must see.")
    timeout_s: int = described("Seconds after which the trial is ended.", minimum=1)
    huge_pages: str = described(
        "The huge pages that the application must have had.", default=default_of("huge_pages")
    )


@dataclass(frozen=True)
class Engine:
    """A program that a role needs on the host, and how it is asked whether it works."""

    name: str = described("As people call it.")
    programs: tuple[tuple[str, ...], ...] = described(
        "Programs that must be installed: of each inner list, one."
    )
    version: tuple[str, ...] = described("Command that prints the version.")
    answers: tuple[str, ...] = described(
        "Command that succeeds if the engine's service answers; empty if it has none.", default=()
    )
    package: str = described(
        "Debian packages that provide it, if it may also come from elsewhere: installed only where "
        "the programs are missing. As in a `Depends` of Debian's: `a, b | c` is a, and b or, where "
        "the host's distribution has none, c. Empty if they are among the role's `packages`.",
        default="",
    )


@dataclass(frozen=True)
class RoleProperties:
    """What a machine or enclosure role says of itself: its meta/virtbed.yml.

    Nothing asks for a role by name; what differs between roles is a property here.
    """

    limits: dict[str, Literal["none", "quota", "set", "count"]] = described(
        "How the role limits CPUs in each mode: by quota, by set, by the number of CPUs that a "
        "machine has, or not."
    )
    trial_s: dict[Literal["real", "emulated"], float] = described(
        "Seconds that a trial takes for this role's part, before the host has shown its own."
    )
    own_kernel: bool = described("Whether a machine runs a kernel of its own.", default=False)
    private_kernel: bool = described(
        "Whether an enclosure answers system calls by a kernel of its own: CPUs are then numbered "
        "from 0 inside, and quotas and some instruction sets are hidden.",
        default=False,
    )
    engines: dict[str, Engine] = described("Programs that it needs, by a short name.", factory=dict)
    packages: tuple[str, ...] = described(
        "Debian packages that it needs; {init} stands for systemd or sysv, which the host has.",
        default=(),
    )
    settings: dict[str, str] = described(
        "Files, path to content, that must be there before an engine first starts: written where "
        "neither the engines nor the file were there, and removed at teardown.",
        factory=dict,
    )
    daemons: dict[str, str] = described(
        "Daemons that run then: process name to service name.", factory=dict
    )
    controllers: tuple[str, ...] = described("Control-group controllers that it needs.", default=())
    store: str = described(
        "The folder of the store in which it keeps a copy of the image; empty if it keeps none.",
        default="",
        pattern="^(/.*)?$",
    )
    standing: tuple[str, ...] = described(
        "A command that lists the instances of its engine, a name per line; empty where only the "
        "kernel knows.",
        default=(),
    )
    login: str = described(
        "A command that opens a shell in an instance, which is called {name}, from the machine "
        "that it is on; empty where that machine is all there is.",
        default="",
    )
    drivers: tuple[str, ...] = described(
        "Kernel modules that a machine's guests need, built in or not.", default=()
    )
    host_topology: bool = described(
        "Whether a machine can tell its guests which of their CPUs share a core, a cache, a node.",
        default=False,
    )
    gpu: bool = described(
        "Whether a machine can have a GPU, or an enclosure can hand its machine's GPU on.",
        default=False,
    )
    varies: dict[str, dict[str, tuple[str, ...]]] = described(
        "Factors that an enclosure can vary: the values that are no default, each with a command "
        "that succeeds where the host offers it; without one, every host does.",
        factory=dict,
    )


@dataclass(frozen=True)
class ImageVariant:
    """One entry of images.yml: what a variant of the image holds besides what all of them do."""

    words: str = described("What a reader calls it.", min_length=1)
    lock: str = described("File of its wheels in requirements/.", pattern=r"^[a-z0-9-]+\.txt$")
    build_s: int = described("Seconds that a build takes, about.", minimum=1)
    disk_mib: int = described("Free disk space that a build takes.", minimum=1)
    memory_mib: int = described("Memory available on the host that a trial takes.", minimum=1)
    frameworks: tuple[str, ...] = described("What it can run a model with.", default=())
    packages: tuple[str, ...] = described(
        "Debian packages besides those of every variant.", default=()
    )


@dataclass(frozen=True)
class Platform:
    """One entry of platforms.yml, as design.json keeps it for the analysis."""

    name: str = described("Short name, in ids and tables.", pattern=f"^{NAME}$")
    machine: str = described("The role machine_NAME.", pattern=f"^{NAME}$")
    enclosure: str = described("The role enclosure_NAME.", pattern=f"^{NAME}$")
    words: str = described("What a reader calls it.", min_length=1)
    boundary: str = described("What separates it from its host: its security boundary.")
    colour: str = described("Colour of its marks in figures.", pattern=r"^#[0-9a-f]{6}$")
    mark: str = described("Shape of its marks in figures, as Matplotlib names it.", pattern=MARK)
    modes: dict[str, str] = described(
        "What a reader calls each mode on it: by what limits its CPUs.", factory=dict
    )

    def in_words(self, mode: str) -> str:
        """Return what a reader calls the platform in a mode: "container, CPU quota"."""
        return f"{self.words}, {self.modes.get(mode, mode)}"
