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
    """Repositories are ``folder/owner/name/revision``; ``fetched`` and ``sent`` tell what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fetched: list[tuple[str, str, str]] = []
        self.private: dict[str, bool | None] = {}
        self.messages: list[str] = []

    def install(self, monkeypatch) -> "FakeHub":
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot_download)
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: self)
        return self

    def place(self, repository, revision=None) -> Path:
        return self.folder / "remote" / repository / (revision or "main")

    def snapshot_download(self, repo_id, *, revision=None, allow_patterns=None):
        place = self.place(repo_id, revision)
        if not place.parent.is_dir():
            raise refused(errors.RepositoryNotFoundError)
        if not place.is_dir():
            raise refused(errors.RevisionNotFoundError)
        local = self.folder / "cache" / repo_id / (revision or "main")
        local.mkdir(parents=True, exist_ok=True)
        for name in allow_patterns:
            if (place / name).is_file():
                self.fetched.append((repo_id, revision or "main", name))
                shutil.copyfile(place / name, local / name)
        return str(local)

    def create_repo(self, repo_id, *, private=None, exist_ok=False):
        assert exist_ok or not self.place(repo_id).parent.is_dir()
        self.private.setdefault(repo_id, private)
        self.place(repo_id).mkdir(parents=True, exist_ok=True)

    def create_branch(self, repo_id, *, branch, exist_ok=False):
        self.place(repo_id, branch).mkdir(parents=True, exist_ok=exist_ok)

    def file_exists(self, repo_id, filename, *, revision=None):
        return (self.place(repo_id, revision) / filename).is_file()

    def upload_folder(self, *, repo_id, folder_path, revision=None, commit_message, allow_patterns):
        for name in allow_patterns:
            shutil.copyfile(Path(folder_path) / name, self.place(repo_id, revision) / name)
        self.messages.append(commit_message)
        return SimpleNamespace(commit_url=f"https://huggingface.co/{repo_id}/commit/{len(self.messages)}")
