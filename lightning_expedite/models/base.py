"""What all dense models share: their reducer, and storing and loading them."""

import copy
import difflib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import huggingface_hub
import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import nn

from ..errors import CheckpointError, ConfigError, ExpediteError, OutputError, ReducerError
from ..files import write_atomically
from ..protocol import Protocol
from ..reducers.base import EncoderShape, Reducer
from ..text import markdown, plain
from .checkpoints.files import write_weights
from .checkpoints.reading import Checkpoint, open_checkpoint
from .checkpoints.settings import (
    LIBRARY,
    MODEL_CONFIG_FILE,
    WEIGHTS_FILE,
    ModelConfig,
    StoredReducer,
    package_reducers,
    store_reducer,
    validated,
)
from .hub import PREFIX, parse_reference
from .segmenter.architecture import CONVENTIONS, Architecture, ConventionName
from .zoo import is_local

CARD = Path(__file__).parents[1] / "assets" / "model_card.md"


class DenseModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name=LIBRARY,
    pipeline_tag="image-segmentation",
    tags=["semantic-segmentation", "segmenter", "vision-transformer", "token-reduction"],
    model_card_template=CARD.read_text(encoding="utf-8"),
):
    """A dense-prediction model on a ViT encoder, with an optional token reducer.

    Args:
        architecture: Sizes of the model.
        convention: ``"official"`` or ``"mmseg"``; see `Convention`.

    Attributes:
        protocol: How the weights are to be evaluated, as far as their checkpoint says.
        data_set: Name of the data set they were trained on, where the checkpoint says so.
        classes: Class names in the order of the logits, where they are stored with the weights.
        stored_reducer: The reducer that is stored with the weights; not necessarily the one that is applied.
    """

    def __init__(self, architecture: Architecture, convention: ConventionName = "mmseg") -> None:
        super().__init__()
        self.architecture = architecture
        self.convention = CONVENTIONS[convention]
        self.protocol = Protocol()
        self.data_set: str | None = None
        self.classes: tuple[str, ...] | None = None
        self.stored_reducer: StoredReducer | None = None
        self._reducer: Reducer | None = None

    @property
    def reducer(self) -> Reducer | None:
        """The token reducer; assigning one checks that it can apply to this model."""
        return self._reducer

    @reducer.setter
    def reducer(self, reducer: Reducer | None) -> None:
        if reducer is not None:
            _require_reducer(reducer)
            sizes = self.architecture
            reducer.check(EncoderShape(sizes.depth, sizes.grid, sizes.class_token))
        self._reducer = reducer

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.architecture.num_classes

    def extra_repr(self) -> str:
        """Return what ``repr`` shows beside the modules."""
        return f"convention={self.convention.name!r}, reducer={self.reducer}"

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, reducer: Reducer | None = None) -> Self:
        """Build the model of a checkpoint, in eval mode.

        Raises:
            CheckpointError: Tensors are missing, left over, or of another shape.
            ReducerError: The reducer cannot apply to this model.
        """
        with torch.device("meta"):  # nothing is initialised that the checkpoint replaces
            model = cls(checkpoint.architecture, checkpoint.convention)
        model.reducer = reducer
        try:
            model.load_state_dict(checkpoint.state, assign=True)
        except RuntimeError as error:
            reason = plain(str(error).partition("\n")[2], 1000)
            raise CheckpointError(f"{checkpoint.path}: not a complete {checkpoint.layout} model: {reason}") from error
        model.protocol, model.classes, model.data_set = checkpoint.protocol, checkpoint.classes, checkpoint.data_set
        model.stored_reducer = checkpoint.reducer
        return model.eval()

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name_or_folder: str | Path,
        *,
        reducer: Reducer | type[Reducer] | Literal["stored"] | None = "stored",
        convention: ConventionName | None = None,
        revision: str | None = None,
        weights_folder: str | Path | None = None,
        pack_weights: bool | None = None,
    ) -> Self:
        """Load a model, in eval mode, from a folder or the Hugging Face hub. No code of a repository is ever run.

        Args:
            name_or_folder: As `lightning_expedite.load` takes it, or ``owner/name`` of a model on the hub.
            reducer: ``"stored"``: the one that was stored, if any; ``None``: none; a reducer; or a class of reducers
                that is not in this package, for the stored settings.
            convention: ``"official"`` or ``"mmseg"``; by default the stored one.
            revision: Branch, tag or commit of the hub's repository; the main branch by default.
            weights_folder: Folder of downloaded known weights; models of the hub are kept in the hub's own cache.
            pack_weights: Deprecated and ignored.

        Raises:
            CheckpointError: The model is missing, damaged, another library's, or cannot be downloaded.
            ReducerError: The reducer cannot apply to this model.
        """
        warn_pack_weights(pack_weights)
        name: str | Path = name_or_folder
        if isinstance(name, str) and (name.startswith(PREFIX) or not is_local(name)):
            name = PREFIX + "@".join(part for part in parse_reference(name, revision) if part)
        elif revision is not None:
            raise CheckpointError(f"revision is {revision!r}, but {name} is not a model on the hub: leave revision out")
        checkpoint = open_checkpoint(name, weights_folder, convention)
        if reducer == "stored" or isinstance(reducer, type):
            given = (reducer,) if isinstance(reducer, type) else ()
            stored, config = checkpoint.reducer, checkpoint.path.with_name(MODEL_CONFIG_FILE)
            reducer = stored.make(config, given) if stored is not None else None
        return cls.from_checkpoint(checkpoint, reducer)

    def save_pretrained(  # type: ignore[override]
        self,
        folder: str | Path,
        *,
        classes: Sequence[str] | None = None,
        protocol: Protocol | None = None,
        dtype: torch.dtype | None = None,
        overwrite: bool = False,
        **options: Any,
    ) -> Path:
        """Store the model as ``model.safetensors``, ``config.json`` and a model card, and return the folder.

        Args:
            folder: Where to write; created where missing. An existing model card, ``README.md``, is kept.
            classes: Names of the classes in the order of the logits; by default those the model was loaded with.
            protocol: Evaluation settings to store; by default those the model was loaded with.
            dtype: Floating-point type of the stored weights; the model's own by default.
            overwrite: Whether an existing model is replaced.
            options: See `huggingface_hub.PyTorchModelHubMixin.save_pretrained`.

        Raises:
            OutputError: There is a model already, or the folder cannot be written to.
            ReducerError: The reducer's settings cannot be stored as JSON.
            CheckpointError: There are not as many names as classes, or a weight is beyond the range of ``dtype``.
        """
        folder = Path(folder)
        for name in (MODEL_CONFIG_FILE, WEIGHTS_FILE):
            if (folder / name).exists() and not overwrite:
                raise OutputError(f"{folder / name} exists already; use overwrite=True or another folder")
        model = self._with_settings(classes, protocol, dtype)
        config = model._config()
        names = [markdown(name) for name in config.classes or ()]
        options["model_card_kwargs"] = {"config": config, "sizes": config.architecture, "classes": names}
        try:
            super(DenseModel, model).save_pretrained(folder, **options)
        except OSError as error:
            raise OutputError(f"{folder} cannot be written to: {error.strerror or error}") from error
        return folder

    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str = "",
        *,
        private: bool | None = None,
        revision: str | None = None,
        message: str = "Segmenter stored with lightning_expedite",
        classes: Sequence[str] | None = None,
        protocol: Protocol | None = None,
        dtype: torch.dtype | None = None,
        repository: str | None = None,
        **options: Any,
    ) -> str:
        """Upload what `save_pretrained` writes to the Hugging Face hub, and return the address of the commit.

        Args:
            repo_id: ``owner/name``; created where missing. An existing model card there is kept.
            private: Whether a new repository is private; by default as the owner's settings say.
            revision: Branch to write to, created where missing; the main branch by default.
            message: Message of the commit.
            classes: See `save_pretrained`.
            protocol: See `save_pretrained`.
            dtype: See `save_pretrained`.
            repository: Deprecated name of ``repo_id``.
            options: See `huggingface_hub.PyTorchModelHubMixin.push_to_hub`.

        Raises:
            OutputError: The hub does not answer or refuses.
        """
        if repository is not None:
            warnings.warn("repository is deprecated: write repo_id", FutureWarning, stacklevel=2)
        repo_id, branch = parse_reference(repository or repo_id, revision)
        model = self._with_settings(classes, protocol, dtype)
        try:
            api = huggingface_hub.HfApi(token=options.get("token"))
            api.create_repo(repo_id, private=private, exist_ok=True)
            if branch is not None:
                api.create_branch(repo_id, branch=branch, exist_ok=True)
            if api.file_exists(repo_id, "README.md", revision=branch):
                options["ignore_patterns"] = "README.md"
            options |= {"private": private, "branch": branch, "commit_message": message}
            commit: Any = super(DenseModel, model).push_to_hub(repo_id, **options)
        except ExpediteError:
            raise
        except Exception as error:  # the client's errors have no common base
            raise OutputError(
                f"{PREFIX}{repo_id} could not be written ({plain(error)}): log in with `hf auth login` as someone who "
                "may write there, and check that the hub answers"
            ) from error
        return str(commit.commit_url)

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write weights and config; the mixin writes the model card."""
        write_weights(self.state_dict(), save_directory)
        content = self._config().model_dump_json(by_alias=True, indent=1)
        write_atomically(save_directory / MODEL_CONFIG_FILE, f"{content}\n".encode())

    def _config(self) -> ModelConfig:
        content = {
            "architecture": self.architecture,
            "convention": self.convention.name,
            "protocol": self.protocol,
            "classes": self.classes,
            "reducer": None if self.reducer is None else store_reducer(self.reducer),
        }
        return validated(ModelConfig, content, MODEL_CONFIG_FILE)

    def _with_settings(
        self, classes: Sequence[str] | None, protocol: Protocol | None, dtype: torch.dtype | None
    ) -> Self:
        other = copy.copy(self) if dtype is None else copy.deepcopy(self).to(dtype)
        other.classes = self.classes if classes is None else tuple(classes)
        other.protocol = protocol or self.protocol
        return other


Model = TypeVar("Model", bound=DenseModel)


def with_reducer(model: Model, reducer: Reducer | None) -> Model:
    """Return a new model with another reducer that shares the weights; the given model is unchanged.

    Args:
        model: A model of this package.
        reducer: Token reducer, or ``None`` for the baseline.

    Raises:
        ReducerError: The reducer cannot apply to this model, or the model is not one of this package.
    """
    if not isinstance(model, DenseModel):
        raise ReducerError(
            f"with_reducer got a {type(model).__name__}, which takes no reducer: load a Segmenter with "
            "lightning_expedite.load(...)"
        )
    other = copy.copy(model)
    other.reducer = reducer
    return other


def require_model(given: object) -> None:
    """Raise `ConfigError` for anything but a model of this package."""
    if not isinstance(given, DenseModel):
        raise ConfigError(f"model is {plain(repr(given), 60)}; load it first: lightning_expedite.load(...)")


def _require_reducer(given: object) -> None:
    if isinstance(given, Reducer):
        return
    if isinstance(given, type) and issubclass(given, Reducer):
        raise ReducerError(
            f"reducer is the class {given.__name__}; pass an object with its settings, {given.__name__}(...)"
        )
    names = {kind.__name__.lower(): kind.__name__ for kind in package_reducers()}
    matches = difflib.get_close_matches(str(given).lower(), names, n=1, cutoff=0.5)
    raise ReducerError(
        f"reducer is {given!r}; pass None or an object of lightning_expedite.reducers "
        f"({', '.join(sorted(names.values()))}), for example {names[matches[0]] if matches else 'ToMe'}(...)"
    )


def warn_pack_weights(pack_weights: bool | None) -> None:
    """Warn about an option of earlier versions, where it is given."""
    if pack_weights is not None:
        warnings.warn("pack_weights is deprecated and has no effect: leave it out", FutureWarning, stacklevel=3)
