import { isIP } from 'node:net';
import type { Clock } from './clock.ts';
import type { Config } from './config.ts';
import { publicError } from './errors.ts';
import type { StatusReport } from './http/status-report.ts';
import type { TrustPorts } from './http/trust-app.ts';
import { createTrustDocuments } from './http/trust-documents.ts';
import { listenTrust } from './http/trust-listener.ts';
import { createTrustRate } from './http/trust-rate.ts';
import type { Keeper } from './identity/keeper.ts';
import type { Log } from './log.ts';
import type { TrustBundle } from './spiffe/bundle.ts';
import { writeBundleDocument } from './spiffe/bundle-document.ts';
import type { TrustDomain } from './spiffe/id.ts';
import type { JwtBundle } from './spiffe/jwt-bundle.ts';
import type { Instruments } from './up-metrics.ts';
import { type DoorCertificate, keepOwnCertificate, ownSpiffeId } from './up-own-certificate.ts';
import {
  type CertificateFiles,
  describeCertificate,
  readCertificateFiles,
  watchCertificateFiles,
} from './up-trust-files.ts';

/** The public door of a running authority. */
export type TrustDoor = {
  readonly endpoint: NonNullable<StatusReport['trustEndpoint']>;
  readonly close: () => Promise<void>;
};

export type TrustDoorParts = {
  readonly config: Config;
  readonly trustDomain: TrustDomain;
  readonly x509: () => TrustBundle;
  readonly jwt: () => JwtBundle;
  /** Null when no log of others is witnessed. */
  readonly witness: TrustPorts['witness'];
  readonly keeper: Keeper;
  readonly instruments: Pick<Instruments, 'trust'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly randomBytes: (size: number) => Uint8Array;
};

/** How often consumers of the bundle are told to look, in seconds; SPIRE's default too. */
export const refreshHintSeconds = 300;

/** The SPIFFE bundle of this trust domain, as the public door serves it. */
export function bundleDocument(x509: TrustBundle, jwt: JwtBundle): string {
  return writeBundleDocument({ x509, jwt, refreshHintSeconds });
}

/**
 * Opens the public door: with certificate files it is one for the web (profile `https_web`), else it shows an X509-SVID
 * (profile `https_spiffe`).
 * @throws MeshError `address_in_use`, `config_invalid`, `file_missing`, `file_permissions`, and what kept the certificate
 *   from being made
 */
export async function openTrustDoor(
  parts: TrustDoorParts,
  at: NonNullable<Config['trustAddress']>,
): Promise<TrustDoor> {
  const { config, trustDomain, keeper, instruments, clock, log } = parts;
  const files = certificateFiles(config);
  const own =
    files === null
      ? await keepOwnCertificate(keeper, { door: 'trust-endpoint', trustDomain, dnsNames: namesOf(at.host) })
      : null;
  const first = own?.current() ?? readCertificateFiles(files as NonNullable<typeof files>);
  const listener = await listenTrust({
    at,
    ...first,
    // Relying parties of the web include old ones; consumers of the profile https_spiffe are all new.
    oldestTls: files === null ? 'TLSv1.3' : 'TLSv1.2',
    ports: {
      documents: createTrustDocuments({ ...parts, issuer: config.jwtIssuer, refreshHintSeconds }),
      maxAgeSeconds: refreshHintSeconds,
      takeTurn: createTrustRate(clock),
      answered: (answer) => instruments.trust.answers.add(answer),
      reportFailure: (errorId, error) => log.error({ errorId, err: error }, 'request failed'),
      randomBytes: parts.randomBytes,
      witness: parts.witness ?? null,
    },
    turnedAway: (why) => instruments.trust.turnedAway.add(why),
  });
  const renew = ({ certificate, privateKey }: DoorCertificate) => listener.renew(certificate, privateKey);
  own?.watch((next) => {
    try {
      renew(next);
    } catch (error) {
      log.error(publicError(error), 'the certificate of the trust endpoint could not be renewed');
    }
  });
  const stopWatching =
    files === null ? undefined : watchCertificateFiles(files, first, renew, { clock, log });
  if (files !== null)
    log.info(describeCertificate(first), 'the trust endpoint shows the certificate of its files');
  return {
    endpoint: {
      url: listener.address,
      profile: files === null ? 'https_spiffe' : 'https_web',
      spiffeId: files === null ? ownSpiffeId(trustDomain, 'trust-endpoint').text : null,
    },
    close: async () => {
      stopWatching?.();
      await listener.close(config.shutdownGraceSeconds * 1_000);
    },
  };
}

function certificateFiles({ trustTlsCertificate, trustTlsKey }: Config): CertificateFiles | null {
  if (trustTlsCertificate === null || trustTlsKey === null) return null;
  return { certificate: trustTlsCertificate, privateKey: trustTlsKey };
}

/** For clients that know no SPIFFE IDs, such as curl. Certificates of ours hold no IP addresses. */
function namesOf(host: string): readonly string[] {
  const name = host.toLowerCase();
  return [...new Set(['localhost', ...(hostName.test(name) && isIP(name) === 0 ? [name] : [])])];
}

// With a letter: `0` and `127.1` are addresses to the resolver.
const hostName =
  /^(?=.*[a-z])[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$/;
