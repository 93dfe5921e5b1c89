"""Which layers an operation is for, and with which options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

Options = Mapping[str, Any]
Predicate = Callable[[str, nn.Module], Options | bool | None]
Rules = Mapping[str, Options | bool | None] | Predicate | None

ANSWERS = "True, False, None or a dictionary of options"


class Selection:
    """What is to be done with each layer: nothing, or something with options.

    Args:
        rules: Patterns of paths (``"layer1.*"``, as in ``fnmatch``) with the options of what they
            match, where ``None`` or ``False`` leaves it alone; the first that matches counts. Or a
            function of path and module that returns the same.
        options: Options of every layer, which rules override.

    Raises:
        TypeError: If ``rules`` is neither a dictionary nor a function, or says something else.
    """

    def __init__(self, rules: Rules, options: Options) -> None:
        if rules is not None and not callable(rules) and not isinstance(rules, Mapping):
            raise TypeError(
                "rules must be a dictionary of path patterns, or a function (path, module), got "
                f"{rules!r}"
            )
        self.rules, self.options = rules, options
        self._unused = set(rules) if isinstance(rules, Mapping) else set()

    def named(self, path: str, module: nn.Module) -> bool:
        """Whether a rule asks for this layer by name."""
        answer = self._answer(path, module)
        return answer is not None and answer is not False

    def options_for(self, path: str, module: nn.Module) -> dict[str, Any] | None:
        """Return the options of a layer, or ``None`` if it is to be left alone."""
        answer = self._answer(path, module, default=True)
        if answer is None or answer is False:
            return None
        return {**self.options, **({} if answer is True else answer)}

    @staticmethod
    def check_all_used(*selections: Selection) -> None:
        """Refuse patterns that no layer has met in any of the selections by the same rules.

        Raises:
            ValueError: If there is one: most likely it is misspelt.
        """
        unused = set.intersection(*(selection._unused for selection in selections))
        if unused:
            raise ValueError(
                f"rules must match paths of layers, and nothing matches {sorted(unused)}; "
                "model.named_modules() lists the paths"
            )

    def _answer(self, path: str, module: nn.Module, default: Any = None) -> Any:
        answer = default
        if callable(self.rules):
            answer = self.rules(path, module)
        elif self.rules is not None:
            for pattern, said in self.rules.items():
                if fnmatchcase(path, pattern):
                    self._unused.discard(pattern)
                    answer = said
                    break
        if answer is None or isinstance(answer, (bool, Mapping)):
            return answer
        raise TypeError(f"rules must say {ANSWERS}, got {answer!r} for {path!r}")
