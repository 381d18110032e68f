import { createHash } from 'node:crypto';
import type { TrustBundle } from '../spiffe/bundle.ts';
import { writeBundleDocument, writeOidcDiscovery, writeOidcKeys } from '../spiffe/bundle-document.ts';
import type { JwtBundle } from '../spiffe/jwt-bundle.ts';

/** What a document is; one of a closed set, for counting. */
export type TrustDocumentKind = 'bundle' | 'discovery' | 'keys';

/** A document as it is served. */
export type TrustDocument = {
  readonly kind: TrustDocumentKind;
  /** JSON, UTF-8. */
  readonly body: Buffer;
  /** A strong entity tag: the same bytes have the same, also after a restart (RFC 9110 section 8.8.3). */
  readonly etag: string;
};

/** The documents of now, by the path they are served under. */
export type TrustDocuments = () => ReadonlyMap<string, TrustDocument>;

export type TrustDocumentSources = {
  /** Another object when anything in it has changed. */
  readonly x509: () => TrustBundle;
  /** Another object when anything in it has changed. */
  readonly jwt: () => JwtBundle;
  /** The issuer of tokens, as it stands in them; null serves no OIDC documents. */
  readonly issuer: string | null;
  /** How often a consumer should look, in seconds. */
  readonly refreshHintSeconds: number;
};

/**
 * The public documents of one trust domain. They are written anew when a key has changed, not for each reader.
 * @see SPIFFE Federation, section 5; OpenID Connect Discovery 1.0, section 4
 */
export function createTrustDocuments(sources: TrustDocumentSources): TrustDocuments {
  let [x509, jwt] = [sources.x509(), sources.jwt()];
  let documents = write(x509, jwt, sources);
  return () => {
    const [nowX509, nowJwt] = [sources.x509(), sources.jwt()];
    if (nowX509 !== x509 || nowJwt !== jwt) {
      documents = write(nowX509, nowJwt, sources);
      [x509, jwt] = [nowX509, nowJwt];
    }
    return documents;
  };
}

function write(
  x509: TrustBundle,
  jwt: JwtBundle,
  { issuer, refreshHintSeconds }: TrustDocumentSources,
): ReadonlyMap<string, TrustDocument> {
  const bundle = documentOf('bundle', writeBundleDocument({ x509, jwt, refreshHintSeconds }));
  const documents = new Map([
    ['/', bundle],
    ['/bundle', bundle],
  ]);
  if (issuer === null) return documents;
  // The path of the issuer belongs to the address of its documents (OpenID Connect Discovery 1.0, section 4.1).
  const base = new URL(issuer).pathname.replace(/\/$/, '');
  return documents
    .set(`${base}/.well-known/openid-configuration`, documentOf('discovery', writeOidcDiscovery(issuer)))
    .set(`${base}/keys`, documentOf('keys', writeOidcKeys(jwt)));
}

function documentOf(kind: TrustDocumentKind, text: string): TrustDocument {
  const body = Buffer.from(text, 'utf8');
  return { kind, body, etag: `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"` };
}
