"""How many tokens are given and shown in a second, one after the other over one connection. Told by OS_... variables."""

import os
import time

import requests

ROOT = os.environ["OS_AUTH_URL"] + "/auth/tokens"
SESSION = requests.Session()
USER = {"name": os.environ["OS_USERNAME"], "domain": {"id": "default"}, "password": os.environ["OS_PASSWORD"]}
SCOPE = {"project": {"name": os.environ["OS_PROJECT_NAME"], "domain": {"id": "default"}}}
AUTH = {"auth": {"identity": {"methods": ["password"], "password": {"user": USER}}, "scope": SCOPE}}


def issue(auth):
    answer = SESSION.post(ROOT, json=auth, timeout=30)
    assert answer.status_code == 201, answer.text
    return answer.headers["X-Subject-Token"]


def show(token):
    answer = SESSION.get(ROOT, headers={"X-Auth-Token": token, "X-Subject-Token": token}, timeout=30)
    assert answer.status_code == 200, answer.text


def rate(what, call, seconds=3.0):
    taken, begin = [], time.perf_counter()
    while time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    middle = sorted(taken)[len(taken) // 2] * 1000
    print(f"{what}: {len(taken) / (time.perf_counter() - begin):.0f}/s, p50 {middle:.1f} ms")


token = issue(AUTH)
HEAD = {"X-Auth-Token": token, "X-Subject-Token": token}
user = SESSION.get(ROOT, headers=HEAD, timeout=30).json()["token"]["user"]["id"]
PROGRAMS = f"{os.environ['OS_AUTH_URL']}/users/{user}/application_credentials"
made = SESSION.post(PROGRAMS, headers=HEAD, json={"application_credential": {"name": "rates"}}, timeout=30)
assert made.status_code == 201, made.text
program = made.json()["application_credential"]
PROOF = {"id": program["id"], "secret": program["secret"]}
PROGRAM = {"auth": {"identity": {"methods": ["application_credential"], "application_credential": PROOF}}}
rate("tokens shown", lambda: show(token))
rate("tokens given for an application credential", lambda: issue(PROGRAM))
rate("tokens given for a password", lambda: issue(AUTH))
SESSION.delete(f"{PROGRAMS}/{program['id']}", headers=HEAD, timeout=30)
