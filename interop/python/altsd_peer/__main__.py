"""python3 -m altsd_peer COMMAND ... (-h tells more)"""

import argparse
import json
import os
import socket
import sys
import warnings

from . import conformance
from .frames import CODES, PeerRefused
from .handshake import Config, Initiator, Responder
from .hostile import Env
from .identity import Certificate, Signer, Trust
from .negotiate import Offer
from .noise import KeyPair
from .pki import PKI, make_pki, read_certificates, read_key, read_lists

warnings.filterwarnings("ignore")


def address(text):
    host, _, port = text.rpartition(":")
    return host.strip("[]") or "127.0.0.1", int(port)


def credentials(args):
    if args.pki:
        pki = PKI(args.pki)
        _, _, machine = pki.entry(args.entry)
        return pki.signer(args.entry), args.machine or machine, pki.trust(domain_accounts=args.domain_accounts)
    if not (args.cert and args.key and args.ca and args.machine):
        sys.exit("either --pki, or --cert, --key, --ca and --machine")
    cas = []
    for item in args.ca:
        names, _, path = item.rpartition("=")
        cas += [(Certificate(c), names.split(",") if names else None) for c in read_certificates(path)]
    lists = [x for path in args.crl for x in read_lists(path)]
    trust = Trust(cas, lists, domain_accounts=args.domain_accounts)
    return Signer(read_key(args.key), read_certificates(args.cert)), args.machine, trust


def config(args):
    signer, machine, trust = credentials(args)
    attributes = [tuple(a.split("=", 1)) for a in args.attribute]
    negotiation = Offer(tuple(args.app), transport=tuple(args.transport), frame_size=args.max_frame_size)
    target = (lambda peer: peer.name in args.target) if getattr(args, "target", None) else None
    return Config(KeyPair.generate(), lambda public: signer.identity(public, machine, args.account, attributes), trust,
                  negotiation, target)


def report(machine):
    if machine.result:
        out = machine.result.as_json()
    else:
        error = machine.error
        out = {"ok": False, "refused_by_peer": isinstance(error, PeerRefused), "code": error.code,
               "reason": CODES.get(error.code, "unknown"), "detail": str(error), "handshake_id": machine.id}
    print(json.dumps(out, sort_keys=True), flush=True)
    return bool(machine.result)


def do_dial(args):
    made = config(args)
    with socket.create_connection(args.address, args.timeout) as conn:
        machine = conformance.run_machine(conn, Initiator(made), args.timeout)
        ok = report(machine)
        conformance.close(conn)
    return 0 if ok else 1


def do_listen(args):
    made = config(args)
    ok = True
    with socket.create_server(args.address) as listener:
        print(json.dumps({"listening": "%s:%d" % listener.getsockname()[:2]}), flush=True)
        for _ in range(args.count):
            conn, _ = listener.accept()
            ok = report(conformance.run_machine(conn, Responder(made), args.timeout)) and ok
            conformance.close(conn)
    return 0 if ok else 1


def do_conformance(args):
    roles = ("responder",) if args.listen else ("initiator",) if args.connect else ("initiator", "responder")
    cases = conformance.selected(roles, args.only, args.slow)
    if args.list:
        conformance.list_cases(cases)
        return 0
    if not args.pki or not (args.self or args.connect or args.listen):
        sys.exit("--pki, and one of --self, --connect and --listen")
    pki = PKI(args.pki)
    env = Env(pki, args.app[0], args.account, args.timeout)
    if args.self:
        target = conformance.SelfTarget(pki, args.timeout / 2)
    elif args.connect:
        target = conformance.ConnectTarget(args.connect, args.timeout)
    else:
        target = conformance.ListenTarget(args.listen, args.timeout, args.dial_command, args.verdicts)
        print(json.dumps({"listening": target.address}), flush=True)
    _, failures = conformance.run(target, env, cases, args.survival, args.strict or args.self, not args.quiet)
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"cases": len(cases), "failures": failures}, f, indent=1)
    return 1 if failures else 0


def do_vectors(args):
    from . import vectors
    return vectors.main(args.file)


def do_judge(args):
    from . import judge
    return judge.main()


def do_relay(args):
    from . import relay  # the only part that needs python3-grpcio
    return relay.main(args)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python3 -m altsd_peer", description="A second implementation of the "
                                     "shared-altsd protocol, and its conformance suite.")
    sub = parser.add_subparsers(dest="command", required=True)

    def peer(name, run, text):
        p = sub.add_parser(name, help=text, description=text)
        p.set_defaults(run=run)
        p.add_argument("address", type=address, metavar="HOST:PORT")
        p.add_argument("--pki", help="a directory of make-pki")
        p.add_argument("--entry", default="peer-p256", help="which of its entries this side is")
        p.add_argument("--cert", help="certificate chain, PEM, leaf first")
        p.add_argument("--key", help="private key, PEM")
        p.add_argument("--ca", action="append", default=[], metavar="[NAMES=]FILE")
        p.add_argument("--crl", action="append", default=[])
        p.add_argument("--machine", help="this side's machine name")
        p.add_argument("--account", default=os.environ.get("USER") or "peer")
        p.add_argument("--attribute", action="append", default=[], metavar="NAME=VALUE", help="in ascending order")
        p.add_argument("--app", action="append", default=None, help="application protocol (grpc)")
        p.add_argument("--transport", action="append", default=[])
        p.add_argument("--max-frame-size", type=int, default=0)
        p.add_argument("--domain-accounts", action="store_true")
        p.add_argument("--timeout", type=float, default=20)
        return p
    peer("dial", do_dial, "one handshake as initiator; the outcome as JSON").add_argument(
        "--target", action="append", metavar="ACCOUNT@MACHINE")
    peer("listen", do_listen, "handshakes as responder; the outcomes as JSON").add_argument(
        "--count", type=int, default=1)

    p = sub.add_parser("make-pki", help="keys and certificates for tests")
    p.add_argument("directory")
    p.set_defaults(run=lambda args: make_pki(args.directory))

    p = sub.add_parser("vectors", help="checks a file of test vectors (docs/spec/vectors.md)")
    p.add_argument("file")
    p.set_defaults(run=do_vectors)

    p = sub.add_parser("judge", help="verdicts on input, JSON lines in and out, for differential tests")
    p.set_defaults(run=do_judge)

    p = sub.add_parser("relay", help="puts a daemon behind a TCP address, or makes it dial one (needs python3-grpcio)")
    p.add_argument("mode", choices=("serve", "dial"))
    p.add_argument("address", type=address, metavar="HOST:PORT")
    p.add_argument("--socket", required=True, help="the daemon's socket")
    p.add_argument("--app", default="grpc")
    p.add_argument("--target", action="append", metavar="ACCOUNT@MACHINE", help="dial: whom the client asks for")
    p.add_argument("--count", type=int, default=1, help="dial: how often; 0 is until nobody listens any more")
    p.add_argument("--timeout", type=float, default=30)
    p.set_defaults(run=do_relay)

    p = sub.add_parser("conformance", help="the hostile peer: plays every case and checks what comes")
    p.add_argument("--pki", help="the directory of make-pki that the daemon was started with")
    p.add_argument("--connect", type=address, metavar="HOST:PORT", help="attack the responder there")
    p.add_argument("--listen", type=address, metavar="HOST:PORT", help="attack the initiators that dial here")
    p.add_argument("--self", action="store_true", help="attack this implementation, in both roles")
    p.add_argument("--dial-command", help="with --listen: run for each case; {addr} is the address; the name of a "
                   "status code in its output is taken as the initiator's verdict")
    p.add_argument("--verdicts", metavar="FILE", help="with --listen: a file to which the dialler adds one line for a "
                   "connection, with the name of the status code where it fails; it must exist, and be empty")
    p.add_argument("--app", action="append", default=None,
                   help="application protocol that the other side speaks (grpc)")
    p.add_argument("--account", default="mallory", help="account that the honest handshakes show")
    p.add_argument("--only", help="regular expression on the names")
    p.add_argument("--list", action="store_true", help="print the table as JSON")
    p.add_argument("--slow", action="store_true", help="also the cases that wait for the other side's deadline, which "
                   "--timeout must then exceed")
    p.add_argument("--strict", action="store_true", help="demand a reason of an initiator that fails, too: a status, "
                   "or a verdict")
    p.add_argument("--survival", type=int, default=10, metavar="N", help="an honest handshake after every N cases")
    p.add_argument("--timeout", type=float, default=10)
    p.add_argument("--quiet", action="store_true")
    p.add_argument("--json", metavar="FILE")
    p.set_defaults(run=do_conformance)

    args = parser.parse_args(argv)
    if getattr(args, "app", "") is None:
        args.app = ["grpc"]
    return args.run(args) or 0


if __name__ == "__main__":
    sys.exit(main())
