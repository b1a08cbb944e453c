"""What of the authority is public, over HTTP: the roots as a SPIFFE bundle, and the revocation lists."""

from aiohttp import web

from controller.authority.certificate_authority import CertificateAuthority
from controller.authority.revocation import REVOCATION_FILE, Revocations
from controller.authority.trust_bundle import BundleSequence, UnsupportedRootError, build_bundle


class AuthorityPages:
    """The pages. What they show is signed, or of use only to whoever trusts how they came by it."""

    def __init__(self, authority: CertificateAuthority, sequence: BundleSequence, revocations: Revocations) -> None:
        self._authority = authority
        self._sequence = sequence
        self._revocations = revocations

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve them."""
        router.add_get("/spiffe/bundle", self._serve_bundle)
        router.add_get(f"/{REVOCATION_FILE}", self._serve_revocations)

    async def _serve_bundle(self, _: web.Request) -> web.Response:
        bundle = self._authority.root_pem
        try:
            return web.json_response(build_bundle(bundle, self._sequence.number(bundle)))
        except UnsupportedRootError as error:
            raise web.HTTPNotImplemented(text=f"{error}\n") from error

    async def _serve_revocations(self, _: web.Request) -> web.Response:
        lists = self._revocations.lists
        if lists is None:
            raise web.HTTPNotFound(text="there is no revocation list\n")
        return web.Response(text=lists.pem, content_type="application/x-pem-file")
