"""A Hugging Face hub in a folder, for tests without a network: what the client's functions would do there."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
from huggingface_hub import errors


def refused(kind, text="404 Client Error"):
    """Make an error as the client raises it after an answer of the hub."""
    return kind(text, response=SimpleNamespace(headers={}, request=None, status_code=404))


class FakeHub:
    """Repositories are ``folder/remote/owner/name/revision``; ``fetched`` lists the files that were asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fetched: list[tuple[str, str, str]] = []
        self.private: dict[str, bool | None] = {}
        self.messages: list[str] = []

    def install(self, monkeypatch) -> "FakeHub":
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.hf_hub_download)
        for module in (huggingface_hub, huggingface_hub.hub_mixin):
            monkeypatch.setattr(module, "HfApi", lambda token=None: self)
        return self

    def place(self, repository, revision=None) -> Path:
        return self.folder / "remote" / repository / (revision or "main")

    def hf_hub_download(self, repo_id, filename, *, revision=None):
        place = self.place(repo_id, revision)
        if not place.parent.is_dir():
            raise refused(errors.RepositoryNotFoundError)
        if not place.is_dir():
            raise refused(errors.RevisionNotFoundError)
        self.fetched.append((repo_id, revision or "main", filename))
        if not (place / filename).is_file():
            raise refused(errors.RemoteEntryNotFoundError)
        local = self.folder / "cache" / repo_id / (revision or "main")
        local.mkdir(parents=True, exist_ok=True)
        return str(shutil.copyfile(place / filename, local / filename))

    def create_repo(self, repo_id, *, private=None, exist_ok=False):
        assert exist_ok or not self.place(repo_id).parent.is_dir()
        self.private.setdefault(repo_id, private)
        self.place(repo_id).mkdir(parents=True, exist_ok=True)
        return SimpleNamespace(repo_id=repo_id)

    def create_branch(self, repo_id, *, branch, exist_ok=False):
        self.place(repo_id, branch).mkdir(parents=True, exist_ok=exist_ok)

    def file_exists(self, repo_id, filename, *, revision=None):
        return (self.place(repo_id, revision) / filename).is_file()

    def upload_folder(self, *, repo_id, folder_path, revision, commit_message, ignore_patterns, **_):
        for path in Path(folder_path).iterdir():
            if path.name != ignore_patterns:
                shutil.copyfile(path, self.place(repo_id, revision) / path.name)
        self.messages.append(commit_message)
        return SimpleNamespace(commit_url=f"https://huggingface.co/{repo_id}/commit/{len(self.messages)}")
