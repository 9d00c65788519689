"""What a shared folder states of itself, and checks of it.

`statement.intoto.json` is an in-toto statement (v1) with the sha256 of every file and the provenance of the ticket as a
SLSA predicate (slsa.dev/provenance/v1). Hashes show damage, not who wrote them. With a private key (elliptic curve,
PEM) the folder is also signed as the OpenSSF specifies for models: `model.sig`, a sigstore bundle that `model_signing`
of any origin verifies, without a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winnow.artifacts import read_json, sha256_file, write_json
from winnow.errors import WinnowError

STATEMENT, SIGNATURE = "statement.intoto.json", "model.sig"
TYPE, PREDICATE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"


def files(folder: Path) -> list[Path]:
    """What a statement names: all files but itself and the signature. WinnowError for a link: it may lead anywhere."""
    found = sorted(p for p in folder.rglob("*") if p.is_symlink() or p.is_file())
    for path in found:
        if path.is_symlink():
            raise WinnowError(f"{path}: is a link; a shared folder holds plain files only")
    return [p for p in found if p.relative_to(folder).as_posix() not in (STATEMENT, SIGNATURE)]


def write(folder: Path, about: Mapping[str, Any]) -> None:
    """State the files of `folder`; `about` is the ticket's record (stage, config, parents, source, versions)."""
    subject = [{"name": p.relative_to(folder).as_posix(), "digest": {"sha256": sha256_file(p)}} for p in files(folder)]
    parents = [
        {"name": f"{role}: {p['path']}", "digest": {"sha256": p["sha256"]}}
        for role, p in about.get("parents", {}).items()
    ]
    build = {
        "buildType": f"urn:winnow:stage:{about.get('stage', 'none')}",
        "externalParameters": about.get("config", {}),
        "internalParameters": {"source": about.get("source", ""), "versions": about.get("versions", {})},
        "resolvedDependencies": parents,
    }
    version = about.get("versions", {}).get("winnow", "unknown")
    run = {"builder": {"id": f"urn:winnow:{version}"}, "metadata": {"invocationId": about.get("path", "")}}
    predicate = {"buildDefinition": build, "runDetails": run}
    write_json(
        folder / STATEMENT, {"_type": TYPE, "subject": subject, "predicateType": PREDICATE, "predicate": predicate}
    )


def check(folder: Path, public_key: Path | None = None) -> int:
    """Compare every file with the statement, and with a key the signature too; returns the number of files. WinnowError
    otherwise.
    """
    if not (folder / STATEMENT).is_file():
        raise WinnowError(f"{folder}: holds no {STATEMENT}; give a folder that winnow export wrote")
    stated = _subjects(folder)
    there = {p.relative_to(folder).as_posix() for p in files(folder)}
    if public_key is not None:
        _verify_signature(folder, public_key)
    for name in sorted(stated.keys() ^ there):
        what = "is stated, and not there" if name in stated else "is there, and not stated"
        raise WinnowError(f"{folder / name}: {what}; fetch the folder again from whom you trust")
    for name, digest in stated.items():
        if sha256_file(folder / name) != digest:
            raise WinnowError(
                f"{folder / name}: is not the file that was stated (its sha256 differs); fetch the folder again"
            )
    return len(stated)


def _subjects(folder: Path) -> dict[str, str]:
    """Name -> sha256 of the statement."""
    try:
        found = read_json(folder / STATEMENT)
        if found["_type"] != TYPE:
            raise ValueError(found["_type"])
        return {str(s["name"]): str(s["digest"]["sha256"]) for s in found["subject"]}
    except (KeyError, TypeError, ValueError) as error:
        raise WinnowError(f"{folder / STATEMENT}: is no in-toto statement ({error}); fetch the folder again") from None


def _library() -> Any:
    try:
        import model_signing.hashing
        import model_signing.signing
        import model_signing.verifying
    except ImportError as error:
        raise WinnowError(
            f"keys: model_signing is not installed ({error}); pip install 'winnow[share]', or leave keys out"
        ) from None
    return model_signing


def sign(folder: Path, private_key: Path) -> None:
    """Sign all files of `folder`, the statement included, with an elliptic-curve key."""
    library, folder = _library(), folder.resolve()  # it takes a relative path for another than the one it ignores
    _key(private_key)
    try:
        hashing = library.hashing.Config().set_ignored_paths(paths=[folder / SIGNATURE], ignore_git_paths=False)
        signer = library.signing.Config().use_elliptic_key_signer(private_key=private_key).set_hashing_config(hashing)
        signer.sign(folder, folder / SIGNATURE)
    except (ValueError, TypeError, OSError) as error:
        raise WinnowError(
            f"{private_key}: cannot sign ({error}); give an elliptic-curve private key as PEM, without a password"
        ) from None


def _verify_signature(folder: Path, public_key: Path) -> None:
    library = _library()
    _key(public_key)
    if not (folder / SIGNATURE).is_file():
        raise WinnowError(
            f"{folder}: is not signed (no {SIGNATURE}); ask for a signed one, or check its hashes without --public-key"
        )
    whole = folder.resolve()
    hashing = library.hashing.Config().set_ignored_paths(paths=[whole / SIGNATURE], ignore_git_paths=False)
    try:
        verifier = (
            library.verifying.Config().use_elliptic_key_verifier(public_key=public_key).set_hashing_config(hashing)
        )
        verifier.verify(whole, whole / SIGNATURE)
    except Exception as error:  # the library and those below it each raise their own
        words = " ".join(str(error).split()) or type(error).__name__
        raise WinnowError(
            f"{folder}: the signature does not hold for {public_key} ({words[:160]}); do not use these files"
        ) from None


def _key(path: Path) -> None:
    if not path.is_file():
        raise WinnowError(
            f"{path}: no such key; make one with `openssl ecparam -name prime256v1 -genkey -noout -out key.pem`"
        )
