"""The setup form: a field for each setting that has an effect, and tests that call the source."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fivetran_connector_sdk import ConfigurationForm, Test, form_field

from .errors import ConnectorError, redact_errors
from .settings import FLAG, TEXT, Setting, declared


def setup_form(
    cls: type[Any],
    validate: Callable[[Mapping[str, str]], Any],
    tests: Mapping[str, Callable[[Any], object]],
) -> ConfigurationForm:
    """The form of the settings dataclass ``cls``, and ``tests`` by their labels.

    A test gets the settings that ``validate`` makes, with ``retry_attempts`` 0 so that it does
    not wait, and raises a ConnectorError, whose text is what the user sees.
    """
    form = ConfigurationForm()
    for key, spec in declared(cls).items():
        if not spec.unused:
            form.add_field(_field(key, spec))
    for label, test in tests.items():
        form.add_test(label=label, func=_setup_test(validate, test))
    return form


def _field(key: str, spec: Setting) -> Any:
    required, description = spec.default is None, spec.description
    if spec.kind is FLAG and spec.default == "false":
        # A toggle that nobody has touched looks off, so what is on by default is none.
        return form_field.ToggleField(key, spec.label, description=description, required=required)
    more = {"required": required, "placeholder": spec.default or None}
    if spec.kind.names:
        description += "" if required else f" (empty: {spec.default})"
        options = [form_field.DropdownFieldParam(value=name) for name in spec.kind.names]
        return form_field.DropdownField(
            key, spec.label, fields=options, description=description, **more
        )
    if spec.kind is not TEXT:
        description += f" ({spec.kind.expected})"
    return form_field.TextField(
        key,
        spec.label,
        form_field.TextField.password if spec.secret else form_field.TextField.plain_text,
        description=description,
        **more,
    )


def _setup_test(
    validate: Callable[[Mapping[str, str]], Any], test: Callable[[Any], object]
) -> Callable[..., Any]:
    run = redact_errors(lambda given: test(replace(validate(given), retry_attempts=0)))

    def setup_test(configuration: Mapping[str, str]) -> Any:
        try:
            run(configuration)
        except ConnectorError as error:
            return Test.failure(str(error))
        return Test.success()

    setup_test.__name__ = test.__name__  # by which the platform calls it
    return setup_test
