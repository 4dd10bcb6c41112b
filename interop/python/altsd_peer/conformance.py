"""Runs the table of cases against a live peer, or against this package itself."""

import json
import re
import socket
import subprocess
import sys
import threading
import time

from .cases import table
from .frames import CODES, Refusal
from .handshake import Config, Initiator, Responder
from .hostile import attack_as_initiator, attack_as_responder, describe
from .noise import KeyPair


def run_machine(conn, machine, timeout=10.0):
    """Drives a state machine over a connection to its end; the bytes that follow the handshake are machine.rest."""
    conn.settimeout(timeout)
    try:
        if isinstance(machine, Initiator):
            conn.sendall(machine.start())
        while not machine.done:
            data = conn.recv(65536)
            if not data:
                machine.fail(Refusal(2, "the peer closed the connection", answer=False))
                break
            out = machine.feed(data)
            if out:
                conn.sendall(out)
    except socket.timeout:
        out = machine.fail(Refusal(20, "the handshake did not finish in time"))
        _try_send(conn, out)
    except OSError as err:
        machine.fail(Refusal(2, "the connection broke: %s" % type(err).__name__, answer=False))
    return machine


def _try_send(conn, data):
    try:
        conn.sendall(data)
    except OSError:
        pass


def close(conn):
    """Closes so that what was sent still arrives, although bytes may be left unread."""
    try:
        conn.shutdown(socket.SHUT_WR)
        conn.settimeout(0.2)
        while conn.recv(65536):
            pass
    except OSError:
        pass
    conn.close()


class SelfTarget:
    """This package as the other side, each handshake in a thread of its own."""

    def __init__(self, pki, timeout=10.0):
        self.pki, self.timeout = pki, timeout
        self.trust = pki.trust()
        self.static = KeyPair.generate()
        self.signer = pki.signer("daemon-p256")
        self.thread = None
        self.machine = None

    def config(self):
        return Config(self.static, lambda public: self.signer.identity(public, "daemon.example.test", "server"),
                      self.trust)

    def open(self, role):
        ours, theirs = socket.socketpair()
        self.machine = (Responder if role == "initiator" else Initiator)(self.config())

        def serve(machine=self.machine):
            run_machine(theirs, machine, self.timeout)
            close(theirs)
        self.thread = threading.Thread(target=serve, daemon=True)
        self.thread.start()
        return ours

    def finish(self):
        self.thread.join(self.timeout + 1)
        return None


class ConnectTarget:
    """A responder behind a TCP address."""

    def __init__(self, address, timeout):
        self.address, self.timeout = address, timeout

    def open(self, role):
        return socket.create_connection(self.address, self.timeout)

    def finish(self):
        return None


class ListenTarget:
    """An initiator that dials us: by itself, again and again, or by a command run for each case.

    The command's output is searched for the name of a status code; {addr} in it stands for the address. Or verdicts is
    a growing file to which the dialler adds one line for each connection, as `relay dial` does, searched likewise.
    """

    def __init__(self, address, timeout, command=None, verdicts=None):
        self.timeout, self.command, self.process = timeout, command, None
        self.verdicts = open(verdicts) if verdicts else None
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.listener = socket.create_server(address, family=family)
        self.listener.settimeout(timeout)
        self.address = "%s:%d" % self.listener.getsockname()[:2]

    def open(self, role):
        if self.command:
            self.process = subprocess.Popen(self.command.replace("{addr}", self.address), shell=True,
                                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        conn, _ = self.listener.accept()
        return conn

    def finish(self):
        if self.verdicts:
            return _named(self._next_verdict())
        if not self.process:
            return None
        try:
            text = self.process.communicate(timeout=self.timeout)[0].decode("utf-8", "replace")
        except subprocess.TimeoutExpired:
            self.process.kill()
            text = self.process.communicate()[0].decode("utf-8", "replace")
        self.process = None
        return _named(text)

    def _next_verdict(self):
        line, end = "", time.monotonic() + self.timeout
        while not line.endswith("\n") and time.monotonic() < end:
            more = self.verdicts.readline()
            line += more
            if not more:
                time.sleep(0.01)
        return line


def _named(text):
    """The status whose name stands in the text, the last one if there are several."""
    found = [code for word in re.findall(r"\w+", text) for code, name in CODES.items() if code and name == word]
    return "told %d" % found[-1] if found else None


def one(target, role, env, how):
    conn = target.open(role)
    try:
        outcome = (attack_as_initiator if role == "initiator" else attack_as_responder)(env, conn, how)
    finally:
        conn.close()
    told = target.finish()
    got = describe(outcome)
    return told if told and got == "closed" else got


def selected(roles, only=None, slow=False):
    return [c for c in table() if c.role in roles and (slow or not c.slow) and (not only or re.search(only, c.name))]


def list_cases(cases, out=sys.stdout):
    json.dump([{"name": c.name, "role": c.role, "section": c.section, "expect": list(c.expect), "slow": c.slow}
               for c in cases], out, indent=1)
    out.write("\n")


def run(target, env, cases, survival=10, strict=False, verbose=True, out=sys.stdout):
    """Returns (passed, list of failures). An honest handshake comes first, after each `survival` cases, and at the
    end."""
    failures, passed, since = [], 0, 0
    role = None
    began = time.monotonic()

    def honest(after):
        try:
            got = one(target, role, env, {})
        except OSError as err:
            got = "no connection (%s)" % type(err).__name__
        if got != "accepted":
            failures.append({"name": "survival after " + after, "expect": ["accepted"], "got": got})
            out.write("FAIL survival after %s: %s\n" % (after, got))
    for case in cases:
        if case.role != role:
            role = case.role
            env.recorded.clear()
            honest("the start")
        try:
            got = one(target, role, env, case.how)
        except OSError as err:
            got = "no connection (%s)" % type(err).__name__
        except KeyError as err:
            got = "no honest handshake has given the %s that this case replays" % err
        if case.allows(got, strict):
            passed += 1
            if verbose:
                out.write("ok   %s: %s\n" % (case.name, got))
        else:
            failures.append({"name": case.name, "section": case.section, "expect": list(case.expect), "got": got})
            out.write("FAIL %s (section %s): got %s, expected %s\n" % (
                case.name, case.section, got, " or ".join(case.expect)))
        since += 1
        if since >= survival:
            since = 0
            honest(case.name)
    if role:
        honest("the end")
    out.write("%d cases, %d passed, %d failures, %.1f s\n" % (
        len(cases), passed, len(failures), time.monotonic() - began))
    out.flush()
    return passed, failures
