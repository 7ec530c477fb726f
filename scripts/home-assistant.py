"""A whole Home Assistant, unmodified, is told of `auricle serve` by its own config flow and asked over its REST API.

    python home-assistant.py AURICLE FOLDER [PNG]  with Home Assistant's own Python; FOLDER is made anew

Speech to text, the spoken answer, and an intent that switches a lamp: exit status 1 when one of them is not so.
PNG: a picture of its page on the service, by Chromium.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import shutil
import socket
import subprocess
import sys
import time
import uuid
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import jwt

CLIPS = Path(__file__).parents[1] / "models/demo/clips"
SAID = "turn on the kitchen dishwasher"
CONFIGURATION = """
homeassistant:
  {{name: test, latitude: 0, longitude: 0, elevation: 0, unit_system: metric, time_zone: UTC, country: US,
    auth_providers: [{{type: trusted_networks, trusted_networks: [127.0.0.1], allow_bypass_login: true}}]}}
http: {{server_host: 127.0.0.1, server_port: {port}}}
api:
config:
frontend:
conversation:
stt:
assist_pipeline:
input_boolean: {{dishwasher: {{name: dishwasher}}}}
logger: {{default: warning}}
"""
LIFETIME = 3600.0
PAUSE = 64_000  # bytes, 2 s: Auricle's own voice detection answers before all of it is sent


SEEN = "config/integrations/integration/wyoming"
BROWSER = ["chromium", "--headless=new", "--no-sandbox", "--remote-debugging-port=0", "--window-size=1000,640"]
SETTLE_SECONDS = 60.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def write_home(folder: Path, port: int) -> str:
    """A configuration with an owner who has been welcomed already; the owner's token."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / ".storage").mkdir(parents=True)
    (folder / "configuration.yaml").write_text(CONFIGURATION.format(port=port), encoding="utf-8")
    user = {"id": uuid.uuid4().hex, "name": "owner", "group_ids": ["system-admin"]}
    user |= {"is_owner": True, "is_active": True, "system_generated": False, "local_only": False}
    groups = [{"id": f"system-{name}", "name": name} for name in ("admin", "users", "read-only")]
    token = {"id": uuid.uuid4().hex, "user_id": user["id"], "token_type": "long_lived_access_token", "version": "1"}
    token |= {"client_id": None, "client_name": "test", "client_icon": None, "credential_id": None, "expire_at": None}
    token |= {"last_used_at": None, "last_used_ip": None, "created_at": datetime.now(UTC).isoformat()}
    token |= {"token": secrets.token_hex(64), "jwt_key": secrets.token_hex(64), "access_token_expiration": LIFETIME}
    write_store(folder, "auth", 1, {"users": [user], "groups": groups, "credentials": [], "refresh_tokens": [token]})
    write_store(folder, "onboarding", 4, {"done": ["user", "core_config", "integration", "analytics"]})
    now = int(time.time())
    claims = {"iss": token["id"], "iat": now - 5, "exp": now + int(LIFETIME)}
    return jwt.encode(claims, str(token["jwt_key"]), algorithm="HS256")


def write_store(folder: Path, key: str, version: int, data: dict[str, Any]) -> None:
    stored = {"version": version, "minor_version": 1, "key": key, "data": data}
    (folder / ".storage" / key).write_text(json.dumps(stored), encoding="utf-8")


@contextmanager
def running(arguments: list[str], log: Path) -> Iterator[None]:
    with log.open("w") as file, subprocess.Popen(arguments, stdout=file, stderr=file) as process:
        try:
            yield
        finally:
            process.terminate()


class Home:
    """The REST API of one Home Assistant."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._url = f"http://127.0.0.1:{port}/api/"

    async def get(self, path: str) -> Any:
        async with self._session.get(self._url + path) as answer:
            answer.raise_for_status()
            return await answer.json()

    async def post(self, path: str, **what: Any) -> Any:
        async with self._session.post(self._url + path, **what) as answer:
            answer.raise_for_status()
            return await answer.json()

    async def started(self) -> None:
        while True:
            try:
                if (await self.get("config"))["state"] == "RUNNING":
                    return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.5)

    async def add(self, port: int) -> str:
        """Through the config flow, as a person would; the entry's title."""
        flow = await self.post("config/config_entries/flow", json={"handler": "wyoming"})
        answer = {"host": "127.0.0.1", "port": port}
        while True:
            made = await self.post(f"config/config_entries/flow/{flow['flow_id']}", json=answer)
            if made["type"] == "create_entry":
                return made["title"]
            await asyncio.sleep(1)  # the service may still open its model

    async def entity(self, start: str) -> str:
        while True:
            found = [each["entity_id"] for each in await self.get("states")]
            if name := next((each for each in found if each.startswith(start)), None):
                return name
            await asyncio.sleep(0.2)

    async def transcript(self, clip: Path) -> str:
        with wave.open(str(clip)) as file:
            sound = file.readframes(file.getnframes()) + bytes(PAUSE)
        form = "format=wav; codec=pcm; sample_rate=16000; bit_rate=16; channel=1; language=en"
        name = await self.entity("stt.")
        return (await self.post(f"stt/{name}", data=sound, headers={"X-Speech-Content": form}))["text"]

    async def answer(self, text: str) -> tuple[str, str]:
        """(kind of response, what is spoken)."""
        agent = await self.entity("conversation.auricle")
        said = await self.post("conversation/process", json={"text": text, "language": "en", "agent_id": agent})
        speech = said["response"]["speech"].get("plain", {}).get("speech", "")
        return said["response"]["response_type"], speech

    async def lamp(self) -> str:
        return (await self.get("states/input_boolean.dishwasher"))["state"]


async def picture(port: int, path: Path, folder: Path) -> None:
    """What its page on the service shows; the browser is logged in by its address."""
    profile = folder / "browser"
    address = profile / "DevToolsActivePort"
    with running([*BROWSER, f"--user-data-dir={profile}"], folder / "browser.log"):
        while not address.exists() or len(address.read_text().split()) < 2:
            await asyncio.sleep(0.2)
        devtools = f"http://127.0.0.1:{address.read_text().split()[0]}"
        seen = f"http://127.0.0.1:{port}/{SEEN}"
        async with aiohttp.ClientSession() as session:
            async with session.put(f"{devtools}/json/new?{seen}") as answer:
                tab = (await answer.json())["webSocketDebuggerUrl"]
            await asyncio.sleep(SETTLE_SECONDS)  # its page says nowhere that it is complete
            async with session.ws_connect(tab, max_msg_size=0) as socket:
                await socket.send_json({"id": 1, "method": "Page.captureScreenshot"})
                shot = await socket.receive_json()
    path.write_bytes(base64.b64decode(shot["result"]["data"]))


async def ask(port: int, token: str, wyoming: int, intents: bool) -> bool:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        home = Home(session, port)
        await home.started()
        version = (await home.get("config"))["version"]
        title = await home.add(wyoming)
        heard = await home.transcript(CLIPS / "command.wav")
        answer = await home.answer(heard)
        lamp = await home.lamp()
        again = await home.answer("sing a song")
        print(
            f"Home Assistant {version}, {title}: heard {heard!r}, answered {answer}, the dishwasher is {lamp};", again
        )
        spoken = "Turned on dishwasher." if intents else "turning on the kitchen dishwasher"
        passed = heard == SAID and answer == ("action_done", spoken) and again[0] == "error"
        return passed and lamp == ("on" if intents else "off")


def main() -> int:
    auricle = sys.argv[1]
    folder, *pictures = map(Path, sys.argv[2:])
    passed = True
    for answers in ("handle", "intent"):
        port, wyoming = free_port(), free_port()
        home = folder / answers
        token = write_home(home, port)
        serve = [auricle, "serve", "--port", "0", "--wyoming", str(wyoming), "--wyoming-answers", answers]
        serve += ["--wyoming-names", "dishwasher, kettle"] if answers == "intent" else ["--wyoming-vad"]
        hass = [sys.executable, "-m", "homeassistant", "-c", str(home), "--skip-pip"]
        with running(serve, home / "auricle.log"), running(hass, home / "home-assistant.log"):
            passed &= asyncio.run(asyncio.wait_for(ask(port, token, wyoming, answers == "intent"), 180))
            if pictures and answers == "intent":
                asyncio.run(asyncio.wait_for(picture(port, pictures[0], home), 150))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
