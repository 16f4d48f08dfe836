"""Fetching models from the Hugging Face hub and sending them there.

Of a repository's files only two are ever fetched, by their names: ``config.json`` and ``model.safetensors``. Neither
can hold code, and a reducer that the config names is looked up among those of this package, never imported.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ...errors import CheckpointError, OutputError
from .config import CONFIG_FILE, WEIGHTS_FILE, read_config

PREFIX = "hf://"
CARD_FILE = "README.md"
_WORD = r"[a-zA-Z0-9_][a-zA-Z0-9_.-]*"
_REFERENCE = re.compile(f"({_WORD}/{_WORD})(?:@({_WORD}(?:/{_WORD})*))?")


@dataclass(frozen=True)
class HubReference:
    """A repository of the hub, and a branch, tag or commit of it; the main branch by default."""

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}" + (f"@{self.revision}" if self.revision else "")


def hub_reference(text: str) -> HubReference:
    """Read ``hf://owner/name`` or ``hf://owner/name@revision``; the prefix may be left out.

    Raises:
        CheckpointError: It is neither.
    """
    match = _REFERENCE.fullmatch(text.removeprefix(PREFIX))
    if match is None or ".." in match[0]:  # the client makes folders of these names
        raise CheckpointError(
            f"{text!r} is no model of the hub: write {PREFIX}owner/name or {PREFIX}owner/name@revision"
        )
    return HubReference(match[1], match[2])


def fetch(reference: HubReference) -> Path:
    """Fetch a model's config and weights to the hub's cache on this machine, where they are not there yet.

    Returns:
        Folder with ``config.json`` and ``model.safetensors``.

    Raises:
        CheckpointError: There is no such model, the hub does not answer, or the model is not one of this library's; its
            weights are then not fetched.
    """
    folder = _download(reference, [CONFIG_FILE])
    _require_file(folder, CONFIG_FILE, reference)
    read_config(folder / CONFIG_FILE)
    folder = _download(reference, [CONFIG_FILE, WEIGHTS_FILE])
    _require_file(folder, WEIGHTS_FILE, reference)
    return folder


def push(folder: Path, repository: str, private: bool | None, revision: str | None, message: str) -> str:
    """Send a model's folder to a repository, which is made where missing.

    A model card that is there already stays as it is.

    Returns:
        Address of the commit.

    Raises:
        OutputError: The hub does not answer or refuses.
    """
    api = _client().HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        names = [CONFIG_FILE, WEIGHTS_FILE]
        if not api.file_exists(repository, CARD_FILE, revision=revision):
            names.append(CARD_FILE)
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, revision=revision, commit_message=message, allow_patterns=names
        )
    except Exception as error:  # the client's errors have no common base
        raise OutputError(
            f"{PREFIX}{repository} could not be written ({_reason(error)}): log in with `hf auth login` as someone who "
            "may write there, and look whether the hub answers"
        ) from error
    return str(commit.commit_url)


def _download(reference: HubReference, names: list[str]) -> Path:
    client = _client()
    try:
        return Path(client.snapshot_download(reference.repository, revision=reference.revision, allow_patterns=names))
    except Exception as error:  # the client's errors have no common base
        raise CheckpointError(f"{reference} could not be fetched: {_hint(error, reference, client)}") from error


def _hint(error: Exception, reference: HubReference, client: ModuleType) -> str:
    errors = client.errors
    if isinstance(error, errors.GatedRepoError | errors.RepositoryNotFoundError):
        return (
            "there is no such model, or it is not open to everybody; look at its name, or log in with `hf auth login`"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no branch, tag or commit {reference.revision}"
    if isinstance(error, errors.HFValidationError):
        return _reason(error)
    revision = f" --revision {reference.revision}" if reference.revision else ""
    return (
        "it is not on this machine, and the hub does not answer or HF_HUB_OFFLINE forbids to ask it "
        f"({_reason(error)}). Fetch it where there is a network, `hf download {reference.repository}{revision}`, "
        "and name that folder"
    )


def _require_file(folder: Path, name: str, reference: HubReference) -> None:
    if not (folder / name).is_file():
        raise CheckpointError(f"{reference} has no {name}: it was not stored by Segmenter.push_to_hub")


def _client() -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise CheckpointError(
            "models of the hub need the package huggingface_hub: pip install huggingface_hub"
        ) from error
    return huggingface_hub


def _reason(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
