"""Downloading models from the Hugging Face hub.

Only two files of a repository are ever downloaded: ``config.json`` and ``model.safetensors``. Neither can hold code,
and a reducer that the config names is looked up among those of this package, never imported.
"""

import re
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors

from ..errors import CheckpointError
from ..text import plain
from .checkpoints.settings import MODEL_CONFIG_FILE, WEIGHTS_FILE, read_config

PREFIX = "hf://"
_WORD = r"[a-zA-Z0-9_][a-zA-Z0-9_.-]*"
_REFERENCE = re.compile(f"({_WORD}/{_WORD})(?:@({_WORD}(?:/{_WORD})*))?")


def parse_reference(text: str, revision: str | None = None) -> tuple[str, str | None]:
    """Split ``hf://owner/name`` or ``hf://owner/name@revision`` into repository and revision; the prefix is optional.

    A given ``revision`` replaces the one in the text.
    """
    repository = text.removeprefix(PREFIX)
    reference = f"{repository.partition('@')[0]}@{revision}" if revision else repository
    match = _REFERENCE.fullmatch(reference)
    if match is None or ".." in reference:  # the client makes folders of these names
        raise CheckpointError(
            f"{text!r} is not a model on the hub: write {PREFIX}owner/name or {PREFIX}owner/name@revision"
        )
    return match[1], match[2]


def fetch(text: str) -> Path:
    """Download a model's config and weights to the hub's cache where they are not there yet; return their folder.

    The weights of another library's model are not downloaded.
    """
    repository, revision = parse_reference(text)
    folder = _download(repository, MODEL_CONFIG_FILE, revision).parent
    read_config(folder / WEIGHTS_FILE)
    return _download(repository, WEIGHTS_FILE, folder.name).parent  # of the same commit: a branch may move meanwhile


def _download(repository: str, file: str, revision: str | None) -> Path:
    name = f"{PREFIX}{repository}" + (f"@{revision}" if revision else "")
    try:
        return Path(huggingface_hub.hf_hub_download(repository, file, revision=revision))
    except errors.RepositoryNotFoundError as error:
        reason = "could not be downloaded: there is no such model, or it is not public; log in with `hf auth login`"
        raise CheckpointError(f"{name} {reason}") from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{repository} has no branch, tag or commit {revision}") from error
    except errors.RemoteEntryNotFoundError as error:
        raise CheckpointError(f"{name} has no {file}: it was not stored by Segmenter.push_to_hub") from error
    except Exception as error:  # the client's errors have no common base
        option = f" --revision {revision}" if revision else ""
        raise CheckpointError(
            f"{name} is not on this machine, and the hub does not answer or HF_HUB_OFFLINE is set ({plain(error)}). "
            f"Download it where there is a network, `hf download {repository}{option}`, and use that folder"
        ) from error
