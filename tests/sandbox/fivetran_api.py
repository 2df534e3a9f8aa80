"""A simulator of Fivetran's REST API, as far as `fivetran deploy` uses it."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

from flask import jsonify, request
from werkzeug.wrappers import Response

from .server import Sandbox

KEY = "c3RhbmQtaW46a2V5LW9mLXRoZS1zdGFuZC1pbg=="


class FivetranApi(Sandbox):
    """One destination, ``warehouse``. ``connections``: each one as it was sent last, by name.
    ``packages``: the uploaded zips, by id. ``failing``: the message of a setup test that fails."""

    name = "fivetran"
    data_path = "/v1/"

    def __init__(self) -> None:
        super().__init__()
        self.connections: dict[str, dict[str, Any]] = {}
        self.packages: dict[str, dict[str, bytes]] = {}
        self.failing = ""
        self.app.before_request(self._authenticate)
        for method, path, response in (
            ("GET", "/v1/groups", self._groups),
            ("GET", "/v1/groups/<_group>/connectors", self._list),
            ("GET", "/v1/destinations/<_group>", self._destination),
            ("GET", "/v1/connections/<name>", self._show),
            ("GET", "/v1/connectors/<name>", self._show),
            ("POST", "/v1/connectors", self._create),
            ("PATCH", "/v1/connectors/<name>", self._change),
            ("POST", "/v1/connector-sdk/packages", self._upload),
            ("GET", "/v1/connector-sdk/packages/<package>", self._package),
            ("DELETE", "/v1/connector-sdk/packages/<package>", self._delete),
        ):
            self.app.add_url_rule(path, f"{method} {path}", response, methods=[method])

    def home(self, folder: Path) -> None:
        """Makes the command with the home ``folder`` talk to this simulator."""
        settings = folder / ".fivetran" / "connector_sdk" / "_config.json"
        settings.write_text(json.dumps({"production_base_url": self.url}))

    def sent(self, method: str) -> dict[str, Any]:
        """The JSON of the one request by ``method`` that concerns a connection."""
        [found] = [
            recorded
            for recorded in self.requests
            if recorded.method == method and recorded.path.startswith("/v1/connectors")
        ]
        content: dict[str, Any] = json.loads(found.body)
        return content

    def _authenticate(self) -> Any:
        if request.headers.get("Authorization") != f"Basic {KEY}":
            return _error(401, "AuthFailed")
        return None

    def _groups(self) -> Any:
        return _data(items=[{"id": "group_1", "name": "warehouse"}])

    def _destination(self, _group: str) -> Any:
        return _data(id="group_1")

    def _list(self, _group: str) -> Any:
        asked = request.args["schema"]
        items = [{"id": asked, "service": "connector_sdk"}] if asked in self.connections else []
        return _data(items=items)

    def _show(self, name: str) -> Any:
        return _data(id=name, config={**self.connections[name], "secrets_list": None})

    def _create(self) -> Any:
        content = request.get_json()
        return self._store(content["config"]["schema"], content, 201)

    def _change(self, name: str) -> Any:
        return self._store(name, request.get_json(), 200)

    def _store(self, name: str, content: dict[str, Any], status: int) -> Any:
        self.connections[name] = {**self.connections.get(name, {}), **content["config"]}
        test = {"title": "Read", "status": "FAILED", "message": self.failing}
        response = _data(
            id=name,
            config=self.connections[name],
            setup_tests=[test] if self.failing else [],
            destination_schema_names="FIVETRAN_NAMING",
        )
        response.status_code = status
        return response

    def _upload(self) -> Any:
        uploaded = request.files["file"].read()
        with zipfile.ZipFile(io.BytesIO(uploaded)) as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
        package = f"package_{len(self.packages) + 1}"
        self.packages[package] = content
        return _data(id=package)

    def _package(self, package: str) -> Any:
        if package not in self.packages:
            return _error(404, "NotFound")
        return _data(id=package, connection_ids=["one"])

    def _delete(self, package: str) -> Any:
        del self.packages[package]
        return _data()


def _data(**content: Any) -> Response:
    return jsonify(code="Success", data=content)


def _error(status: int, message: str) -> Response:
    response = jsonify(code=message, message=message)
    response.status_code = status
    return response
