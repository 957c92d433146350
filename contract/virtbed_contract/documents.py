"""Documents that the controller, the roles and the image exchange, as frozen dataclasses.

The plan becomes `Instance` and `TrialRequest`, which the controller passes to the playbooks as
variables. Roles describe themselves with `RoleProperties`; platforms.yml and images.yml hold
`Platform` and `ImageVariant`. Results and the other files of a sweep are in `result` and `sweep`.

Lists of CPUs and memory nodes are kernel lists ("0-2,5"). Names of quantities end in their unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Optional

from .codec import described
from .factors import NAME, default_of

KERNEL_LIST = r"^([0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)?$"
DIGEST = r"^sha256:[0-9a-f]{64}$"
IMAGE_NAME = r"^[0-9a-f]{16}$"
SWEEP_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,100}$"  # the name of a folder: no slash
TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z$"
BARE = ("metal", "process")
"""Machine and enclosure of bare metal, the baseline of the other platforms."""
MARK = r"^[.,ov^<>1-4sp*hH+xDdP8X|_]$"
"""Names of Matplotlib's markers."""


def image_name(digest: str) -> str:
    """Return the name of an image's folder and the tag of its copies in engines' stores.

    >>> image_name("sha256:0123456789abcdef" + 48 * "0")
    '0123456789abcdef'
    """
    return digest[len("sha256:") :][:16]


@dataclass(frozen=True)
class HostKernel:
    """The kernel that the bench host runs, which its guests can boot, too."""

    release: str = described("Release of the kernel, as `uname -r` prints it.", min_length=1)
    version: str = described("Build of that release, as `uname -v` prints it.", min_length=1)
    file: str = described("Path of the kernel's file on the host.", min_length=1)
    digest: str = described("Digest of the kernel's file.", pattern=DIGEST)
    modules: str = described("Folder of the kernel's modules on the host.", min_length=1)
    config: str = described("Path of the kernel's build configuration on the host.", min_length=1)


@dataclass(frozen=True)
class InstanceGpu:
    """The GPU of an instance: the PCI functions for a guest, the files for a process."""

    uuid: Optional[str] = described(
        "UUID of the GPU; null if the host's driver does not report it."
    )
    functions: tuple[str, ...] = described(
        "PCI addresses that are passed to a guest: the GPU, then the other functions of its card.",
        min_items=1,
    )
    window_mib: int = described(
        "Address space that a guest needs to map the GPU's memory, in MiB.", minimum=1
    )
    nodes: tuple[str, ...] = described("Device nodes through which a process on the host uses it.")
    libraries: dict[str, str] = described(
        "Libraries of the GPU's driver on the host: from the name that is loaded to the path."
    )


@dataclass(frozen=True)
class GuestNode:
    """One NUMA node of a guest."""

    host: int = described("NUMA node of the host that the node's memory is bound to.", minimum=0)
    vcpus: str = described(
        "vCPUs of the node, numbered by their places in the grid of `shape`.",
        pattern=KERNEL_LIST,
    )
    memory_mib: int = described("Memory of the node, in MiB.", minimum=1)
    distances: tuple[int, ...] = described(
        "Distance to each node of the guest, as the host's firmware reports it; 0 if unknown."
    )


@dataclass(frozen=True)
class GuestShape:
    """The CPU topology of a guest: a grid of sockets, cores and threads, arranged as on the host.

    A vCPU's number is its place in the grid: (socket * cores + core) * threads + thread. Some
    places stay without a vCPU, so that vCPUs share caches and cores as their host CPUs do.
    """

    sockets: int = described("Number of sockets.", minimum=1)
    cores: int = described("Places for cores, per socket.", minimum=1)
    threads: int = described("Places for threads, per core.", minimum=1)
    vcpus: tuple[int, ...] = described("Place of each vCPU, in the order of the field `cpu_ids`.")
    nodes: tuple[GuestNode, ...] = described(
        "NUMA nodes of the guest; empty if there is only one, which needs no description."
    )


@dataclass(frozen=True)
class Neighbour:
    """Placement of a neighbour: an instance like the measured one, which runs the same application.

    A neighbour has CPUs of its own; it shares caches and memory with the measured instance.
    """

    cpus: str = described("Host CPUs that the neighbour runs on.", pattern=KERNEL_LIST)
    mems: str = described("Host memory nodes that it is bound to.", pattern=KERNEL_LIST)
    shares: str = described(
        "The smallest part of the host that it shares with the measured instance: core, a cache "
        "such as L2 or L3, node, package or machine.",
        min_length=1,
    )
    housekeeping: bool = described(
        "Whether helpers and the controller also run on its CPUs, since the host has no others "
        "left."
    )


@dataclass(frozen=True)
class Instance:
    """One platform of one size and mode on one host; the variable ``virtbed_instance`` of roles.

    CPUs and nodes in `inner_*` and `seen_*` are numbered as inside the machine: a guest's CPUs
    start at 0, whichever CPUs of the host run them.
    """

    id: str = described(
        "Id of the instance. Everything made for it is named virtbed- followed by this id."
    )
    platform: str = described("Name of the platform, as in platforms.yml.", pattern=f"^{NAME}$")
    machine: str = described("What the kernel runs on: the role machine_NAME.")
    enclosure: str = described("What the process runs in: the role enclosure_NAME.")
    own_kernel: bool = described("Whether the machine runs its own kernel, as a guest does.")
    private_kernel: bool = described(
        "Whether the enclosure answers system calls by its own kernel, as gVisor does."
    )
    mode: Literal["vanilla", "pinned"] = described(
        "How the share of CPUs is enforced: vanilla by count, pinned by set."
    )
    enclosure_limit: Literal["none", "quota", "set"] = described(
        "How the enclosure limits CPUs in this mode."
    )
    cores: int = described("Number of CPUs of the instance.", minimum=1)
    memory_mib: int = described("Memory of the instance, in MiB.", minimum=1)
    accelerator: Literal["none", "kvm", "tcg"] = described("What runs the guest; none on metal.")
    cpus: str = described("Host CPUs that a pinned instance runs on.", pattern=KERNEL_LIST)
    cpu_ids: tuple[int, ...] = described(
        "The CPUs of `cpus` one by one, in the order in which the machine numbers them."
    )
    mems: str = described("Host memory nodes of a pinned instance.", pattern=KERNEL_LIST)
    housekeeping: str = described(
        "Host CPUs for emulator threads, daemons and the controller.", pattern=KERNEL_LIST
    )
    allowed: str = described(
        "Every host CPU that is online while the instance exists.", pattern=KERNEL_LIST
    )
    inner_cpus: str = described("`cpus`, as the machine numbers them.", pattern=KERNEL_LIST)
    inner_mems: str = described("`mems`, as the machine numbers them.", pattern=KERNEL_LIST)
    inner_allowed: str = described("Every CPU of the machine.", pattern=KERNEL_LIST)
    seen_cpus: str = described(
        "CPUs that a process in the instance must be allowed to run on.", pattern=KERNEL_LIST
    )
    quota_cpus: Optional[float] = described(
        "CPU quota that limits a process in the instance, in CPUs; null for no quota.", above=0
    )
    seen_quota_cpus: Optional[float] = described(
        "CPU quota that a process in the instance reads, in CPUs; null if it is hidden from it.",
        above=0,
    )
    image_digest: str = described("Digest of the image that the instance runs.", pattern=DIGEST)
    image_name: str = described(
        "Name of the image's folder, and its tag in engines' stores.", pattern=IMAGE_NAME
    )
    factors: dict[str, str] = described(
        "Value of each factor of the instance, by the factor's name.", factory=dict
    )
    kernel: Optional[HostKernel] = described(
        "The host's kernel, if the guest boots it; null if it boots the image's.", default=None
    )
    shape: Optional[GuestShape] = described(
        "CPU topology of the guest; null for a flat one, in which every CPU is a socket.",
        default=None,
    )
    gpu: Optional[InstanceGpu] = described("GPU of the instance; null for none.", default=None)
    placement: tuple[str, ...] = described(
        "Why `cpus`, `mems` and `housekeeping` were chosen; empty if nothing is pinned.",
        default=(),
    )
    host_emulated: bool = described(
        "Whether the bench host is itself emulated; no time measured on it is a figure.",
        default=False,
    )
    neighbours: tuple[Neighbour, ...] = described(
        "Placement of each neighbour, in order; empty if there are none.", default=()
    )


@dataclass(frozen=True)
class TrialRequest:
    """One trial as the controller requests it; the variable ``virtbed_trial`` of roles."""

    id: str = described("Id of the trial.")
    argv: tuple[str, ...] = described("The application and its arguments.", min_items=1)
    thread_policy: str = described("The thread policy that the application must confirm.")
    isa: tuple[str, ...] = described("Instruction-set extensions that the application must see.")
    timeout_s: int = described("Time limit after which the trial is ended, in seconds.", minimum=1)
    huge_pages: str = described(
        "The huge-pages setting that the application must confirm.",
        default=default_of("huge_pages"),
    )


@dataclass(frozen=True)
class Engine:
    """A program that a role needs on the host, and the commands that check it."""

    name: str = described("Name of the engine, for people.")
    programs: tuple[tuple[str, ...], ...] = described(
        "Programs that must be installed: at least one of each inner list."
    )
    version: tuple[str, ...] = described("Command that prints the version.")
    answers: tuple[str, ...] = described(
        "Command that succeeds if the engine's service answers; empty if it has no service.",
        default=(),
    )
    package: str = described(
        "Debian packages that provide the engine, if it may also have another origin: they are "
        "installed only where the programs are missing. Written like Debian's field `Depends`: "
        "`a, b | c` is a, and b or, if the host's distribution lacks b, c. Empty if the packages "
        "are in the role's `packages`.",
        default="",
    )


@dataclass(frozen=True)
class RoleProperties:
    """Properties that a machine or enclosure role declares in its meta/virtbed.yml.

    Code outside the roles never depends on a role's name: every difference is a property here.
    """

    limits: dict[str, Literal["none", "quota", "set", "count"]] = described(
        "How the role limits CPUs in each mode: by a quota, by a set, by the number of CPUs of the "
        "machine, or not at all (none)."
    )
    trial_s: dict[Literal["real", "emulated"], float] = described(
        "Estimate of this role's part of a trial's duration, in seconds, for use until the host "
        "has measured trials of its own."
    )
    own_kernel: bool = described("Whether the machine runs its own kernel.", default=False)
    private_kernel: bool = described(
        "Whether the enclosure answers system calls by its own kernel. CPUs are then numbered "
        "from 0 inside, and quotas and some instruction sets are hidden.",
        default=False,
    )
    engines: dict[str, Engine] = described(
        "Programs that the role needs, by a short name.", factory=dict
    )
    packages: tuple[str, ...] = described(
        "Debian packages that the role needs; {init} is replaced by systemd or sysv, whichever the "
        "host has.",
        default=(),
    )
    settings: dict[str, str] = described(
        "Files, from path to content, that must exist before an engine first starts. They are "
        "written where neither the engines nor the file existed, and removed at teardown.",
        factory=dict,
    )
    daemons: dict[str, str] = described(
        "Daemons that run while the engines do: from process name to service name.", factory=dict
    )
    controllers: tuple[str, ...] = described(
        "Control-group controllers that the role needs.", default=()
    )
    store: str = described(
        "Folder of the store in which the role keeps a copy of the image; empty if it keeps none.",
        default="",
        pattern="^(/.*)?$",
    )
    standing: tuple[str, ...] = described(
        "Command that lists the instances of the role's engine, one name per line; empty if only "
        "the kernel knows them.",
        default=(),
    )
    login: str = described(
        "Command, run on the machine of an instance, that opens a shell in it; {name} is replaced "
        "by the instance's name. Empty if the machine itself is the instance.",
        default="",
    )
    drivers: tuple[str, ...] = described(
        "Kernel modules that the machine's guests need, built in or loadable.", default=()
    )
    host_topology: bool = described(
        "Whether the machine can show its guests which of their CPUs share a core, a cache or a "
        "node.",
        default=False,
    )
    gpu: bool = described(
        "Whether the machine can have a GPU, or the enclosure can pass on its machine's GPU.",
        default=False,
    )
    varies: dict[str, dict[str, tuple[str, ...]]] = described(
        "Factors that the enclosure can vary: their values other than the default, each with a "
        "command that succeeds if the host supports it; empty if every host does.",
        factory=dict,
    )


@dataclass(frozen=True)
class ImageVariant:
    """One entry of images.yml: a variant of the image, and what it adds to the common base."""

    words: str = described("Name of the variant in texts for people.", min_length=1)
    lock: str = described(
        "File in requirements/ that locks the variant's wheels.", pattern=r"^[a-z0-9-]+\.txt$"
    )
    build_s: int = described("Approximate duration of a build, in seconds.", minimum=1)
    disk_mib: int = described("Free disk space that a build needs, in MiB.", minimum=1)
    memory_mib: int = described("Available memory that a trial needs, in MiB.", minimum=1)
    frameworks: tuple[str, ...] = described("Frameworks that can run a model in it.", default=())
    packages: tuple[str, ...] = described(
        "Debian packages in addition to those of every variant.", default=()
    )


@dataclass(frozen=True)
class Platform:
    """One entry of platforms.yml, which design.json keeps for the analysis."""

    name: str = described("Short name, in ids and tables.", pattern=f"^{NAME}$")
    machine: str = described("What the kernel runs on: the role machine_NAME.", pattern=f"^{NAME}$")
    enclosure: str = described(
        "What the process runs in: the role enclosure_NAME.", pattern=f"^{NAME}$"
    )
    words: str = described("Name of the platform in texts for people.", min_length=1)
    boundary: str = described("Security boundary between the platform and its host.")
    colour: str = described("Colour of its marks in figures.", pattern=r"^#[0-9a-f]{6}$")
    mark: str = described("Shape of its marks in figures, as Matplotlib names it.", pattern=MARK)
    modes: dict[str, str] = described(
        "Name of each mode on this platform in texts for people: what limits its CPUs.",
        factory=dict,
    )

    def in_words(self, mode: str) -> str:
        """Return the name of the platform in a mode for people: "container, CPU quota"."""
        return f"{self.words}, {self.modes.get(mode, mode)}"
