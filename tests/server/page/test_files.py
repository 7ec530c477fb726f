"""The page's files: who may load them, what they may do, and what of the bundle they are told."""

from __future__ import annotations

import re
from importlib import resources

import httpx2 as httpx
import pytest
from auricle.runtime.engine import Engine
from auricle.runtime.server.options import ServerOptions
from auricle.runtime.server.page.files import FILES, PATHS, POLICY
from served import Served, serving


@pytest.mark.parametrize("path", sorted(PATHS))
def test_files_come_with_a_policy_that_lets_them_load_nothing_foreign(served: Served, path: str) -> None:
    answer = httpx.get(f"{served.url}{path}")
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "unsafe" not in POLICY and "*" not in POLICY and "default-src 'none'" in POLICY
    assert not re.search(r"(?:https?|wss?)://(?!127\.0\.0\.1|www\.w3\.org/2000/svg)", answer.text)
    if path.endswith(".js"):
        assert answer.headers["content-type"].startswith("text/javascript")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", answer.text)
    if "html" in answer.headers["content-type"]:
        assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?! type=\"module\" src=\")", answer.text)
        for name in re.findall(r"(?:src|href)=\"([^\"#]+)\"", answer.text):
            assert name.partition("?")[0] in PATHS


def test_modules_import_what_is_there() -> None:
    for name, content in FILES.items():
        for imported in re.findall(r"from '\./([\w.-]+)'", content.decode()) if name.endswith(".js") else ():
            assert imported in FILES, name


def test_the_overlay_is_a_page_of_its_own(served: Served) -> None:
    whole, overlay = (httpx.get(f"{served.url}/{query}").text for query in ("", "?overlay"))
    assert "overlay.js" in overlay and "overlay.js" not in whole


@pytest.mark.parametrize("path", ["/page/nothing.js", "/page/..%2ffiles.py", "/page/../files.py", "/page/"])
def test_nothing_else_is_served(served: Served, path: str) -> None:
    assert httpx.get(f"{served.url}{path}").status_code == 404


def test_hosts_and_keys(engine: Engine) -> None:
    """Whoever may not ask still gets the page, which asks for the key; another host gets nothing."""
    with serving(engine, ServerOptions(port=0, key="s3cret")) as running:
        for path in sorted(PATHS):
            assert httpx.get(f"{running.url}{path}").status_code == 200
            assert httpx.get(f"{running.url}{path}", headers={"host": "evil.example"}).status_code == 403
        tasks = f"{running.url}/page/tasks"
        assert httpx.get(tasks).status_code == 401
        assert httpx.get(tasks, headers={"authorization": "Bearer s3cret"}).status_code == 200


def test_what_the_page_is_told_of_the_bundle(served: Served, engine: Engine) -> None:
    told = httpx.get(f"{served.url}/page/tasks").json()
    assert told["model"] == "auricle-demo" and "de" in told["languages"]
    assert {task["name"]: task["prompt"] for task in told["tasks"]} == engine.prompt.tasks


def test_every_file_of_the_folder_is_served() -> None:
    folder = resources.files("auricle.runtime.server.page").joinpath("static")
    assert {each.name for each in folder.iterdir()} == FILES.keys()
