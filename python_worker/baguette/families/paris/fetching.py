"""The published Paris from a Hugging Face Hub into a model directory: only what is needed, resumed.

Called by `weights`. The Hub's own client asks, authorises and reads; what is here besides is that a
file half fetched is kept across runs (`.fetch` in the directory) and gone on with, which that
client does within one run only. Nothing appears under its own name before it is whole. The token,
where one is needed, is the client's: HF_TOKEN or `hf auth login`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers, disable_progress_bars

from baguette import manifest
from baguette.aliases import EXPERT_FILES, ROUTER_FILES
from baguette.errors import BadInput, WeightsError
from baguette.files import check_room
from baguette.manifest import Manifest

TIMEOUT_S = 10.0
PARTIAL = ".fetch"
ROOT_FILES = ("config.json", "model_index.json")
PART_FILES = (
    re.compile(r"text_encoder/(config\.json|model\.safetensors)"),
    re.compile(r"tokenizer/[^/.][^/]*\.(json|txt)"),
    re.compile(r"vae/(config\.json|diffusion_pytorch_model\.safetensors)"),
)
_EXPERT = re.compile(r"expert_(\d+)[./]")


@dataclass(frozen=True)
class RemoteFile:
    """One file as the Hub tells of it: bytes, the name of its contents, SHA-256 of large ones."""

    name: str
    size: int
    blob: str
    sha256: str | None


@dataclass(frozen=True)
class Remote:
    """One revision of a repository, pinned: what is fetched is of one commit."""

    repo: str
    revision: str
    files: Mapping[str, RemoteFile]

    @classmethod
    def ask(cls, repo: str, revision: str | None) -> Remote:
        """What the Hub has; one question, asked once."""
        info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
        files = [_remote_file(sibling) for sibling in info.siblings or ()]
        return cls(repo, str(info.sha), {file.name: file for file in files})

    def experts(self) -> list[int]:
        """The numbers of the experts it has."""
        numbers = {int(m[1]) for m in map(_EXPERT.match, self.files) if m}
        return sorted(n for n in numbers if self._first(_named(EXPERT_FILES, n)))

    def wanted(self, experts: Iterable[int]) -> list[RemoteFile]:
        """All files of these experts, the router and the other parts; small ones first."""
        names = [name for name in ROOT_FILES if name in self.files]
        names += [n for n in self.files if any(part.fullmatch(n) for part in PART_FILES)]
        for choice in (ROUTER_FILES, *(_named(EXPERT_FILES, number) for number in experts)):
            tensors = self._first(choice)
            if tensors is None:
                raise WeightsError(f"{self.repo} has no {choice[0]}: name another with REPO=")
            beside = tensors.rpartition("/")[0] + "/config.json"
            names += [name for name in (beside, tensors) if name in self.files]
        return sorted((self.files[name] for name in names), key=lambda file: (file.size, file.name))

    def _first(self, names: Sequence[str]) -> str | None:
        return next((name for name in names if name in self.files), None)


def _named(patterns: Iterable[str], number: int) -> list[str]:
    return [pattern.format(k=number) for pattern in patterns]


def _remote_file(sibling: Any) -> RemoteFile:
    sha256 = sibling.lfs["sha256"] if sibling.lfs else None
    return RemoteFile(sibling.rfilename, int(sibling.size or 0), str(sibling.blob_id), sha256)


def fetch(repo: str, target: Path, experts: Sequence[int] | None, revision: str | None) -> Remote:
    """Fetch into `target` what is not there yet, then write the manifest.

    `experts` None means all. Raises WeightsError in one sentence for whatever the network, the Hub
    or the disk refuses, BadInput for an expert that the repository has not.
    """
    try:
        return _fetch(repo, target, experts, revision)
    except GatedRepoError:
        raise WeightsError(
            f"{repo} is gated: accept its terms at {constants.ENDPOINT}/{repo}, then "
            "`hf auth login` or set HF_TOKEN, and run this again"
        ) from None
    except RepositoryNotFoundError:
        raise WeightsError(
            f"{constants.ENDPOINT} knows no {repo}, or not for you: check REPO, and for a private "
            "one `hf auth login` or set HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise WeightsError(f"{repo} has no revision {revision!r}: name another") from None
    except HfHubHTTPError as error:
        raise WeightsError(
            f"{constants.ENDPOINT} answered {error.response.status_code} for {repo}: "
            "run this again later"
        ) from None
    except (HTTPError, OfflineModeIsEnabled) as error:
        raise WeightsError(
            f"{constants.ENDPOINT} cannot be reached ({_first_line(error)}): run this again with a "
            "network; what was fetched is kept"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise WeightsError(
            f"the disk of {target} is full: make room, then run this again"
        ) from None


def _fetch(repo: str, target: Path, experts: Sequence[int] | None, revision: str | None) -> Remote:
    remote = Remote.ask(repo, revision)
    there = remote.experts()
    unknown = sorted(set(experts or ()) - set(there))
    if unknown or not there:
        listed = ", ".join(map(str, there)) or "none"
        raise BadInput(f"--experts {unknown or ''}: {repo} has experts {listed}")
    missing = [
        file for file in remote.wanted(experts or there) if not _has(target / file.name, file.size)
    ]
    kept = sum(_size(_partial(target, file)) for file in missing)
    check_room(target, sum(file.size for file in missing) - kept)
    for file in missing:
        _download(remote, file, target)
    if (target / PARTIAL).is_dir() and not any((target / PARTIAL).iterdir()):
        (target / PARTIAL).rmdir()
    manifest.write(target)
    _verify(remote, target)
    return remote


def quiet() -> None:
    """No progress bars: standard error is no terminal."""
    disable_progress_bars()


def _has(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _partial(target: Path, file: RemoteFile) -> Path:
    # By contents, so that a newer revision's file is never joined to an older one's.
    return target / PARTIAL / f"{file.sha256 or file.blob}.part"


def _download(remote: Remote, file: RemoteFile, target: Path) -> None:
    partial = _partial(target, file)
    partial.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("ab") as out:
        try:
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WeightsError(f"another run is fetching {file.name} into {target}") from None
        _read_on(remote, file, out)
        os.fsync(out.fileno())
        (target / file.name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial, target / file.name)


def _read_on(remote: Remote, file: RemoteFile, out: BinaryIO) -> None:
    if file.sha256 is None or out.tell() > file.size:
        out.truncate(0)  # small text: not worth going on with
    # Compressed on the way, a file could not be gone on with.
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    http_get(
        hf_hub_url(remote.repo, file.name, revision=remote.revision),
        out,
        resume_size=out.seek(0, os.SEEK_END),
        headers=headers,
        expected_size=file.size,
        displayed_filename=file.name,
    )
    out.flush()


def _verify(remote: Remote, target: Path) -> None:
    """Every large file in `target` against the Hub's SHA-256: those of earlier runs too."""
    lines = Manifest.read(target).lines or {}
    wrong = [
        name
        for name, file in remote.files.items()
        if file.sha256 is not None and name in lines and lines[name].sha256 != file.sha256
    ]
    if wrong:
        (target / manifest.NAME).unlink()
        raise WeightsError(
            f"{', '.join(wrong)} in {target} differ from {remote.repo} at {remote.revision[:8]}: "
            "remove them and run this again"
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:160] or type(error).__name__
