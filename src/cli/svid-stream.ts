import { credentials, type Metadata } from '@grpc/grpc-js';
import { type ErrorCode, errorKinds, MeshError, quote } from '../errors.ts';
import { codeMetadataKey, plainDetails } from '../grpc/status.ts';
import { decodePem, encodePem } from '../spiffe/pem.ts';
import { defaultBundleName, secretTypeUrl } from '../xds/secret.ts';
import type { DataSource } from '../wire/core.ts';
import type { DiscoveryRequest, DiscoveryResponse } from '../wire/discovery.ts';
import { SecretDiscoveryServiceClient } from '../wire/sds.ts';
import { type CertificateValidationContext, Secret, SPIFFECertValidatorConfig } from '../wire/tls.ts';

/** A certificate with its key and the bundle to verify peers with, as the socket gave them. */
export type FetchedSvid = {
  /** DER, the leaf first. */
  readonly certificates: readonly Uint8Array[];
  /** PKCS#8, PEM. Never printed. */
  readonly privateKeyPem: string;
  /** DER. */
  readonly authorities: readonly Uint8Array[];
  /** That the issuance is in the audit log, a `.tlog-proof`; absent when the server gives none. */
  readonly proof?: string;
};

/** What to ask for, and where. */
export type SvidSource = {
  readonly socket: string;
  /** `default`, or a SPIFFE ID. */
  readonly name: string;
};

/** A certificate that its receiver has to confirm. */
export type OfferedSvid = FetchedSvid & {
  /**
   * Tells the server that what it sent is in use: a rotation of the CA waits for that. Until then the server sends
   * nothing newer on this stream. It never rejects.
   */
  readonly confirm: () => Promise<void>;
};

/** The same as {@link offerSvid}, where what is received counts as being in use. */
export async function* streamSvid(source: SvidSource, signal: AbortSignal): AsyncGenerator<FetchedSvid> {
  for await (const svid of offerSvid(source, signal)) {
    void svid.confirm();
    yield svid;
  }
}

/**
 * Asks for a certificate and its bundle over SDS, as this very process, and gives each state in which both are there;
 * it ends when `signal` aborts. A process without an identity is told nothing, and waits.
 * @throws MeshError as {@link offerSecrets}
 */
export async function* offerSvid(
  { socket, name }: SvidSource,
  signal: AbortSignal,
): AsyncGenerator<OfferedSvid> {
  let held: Partial<FetchedSvid> = {};
  for await (const { secrets, confirm } of offerSecrets(socket, [name, defaultBundleName], signal)) {
    // A certificate without a proof has none, whatever the one before it had.
    const { proof: _, ...others } = held;
    held = { ...(secrets.certificates === undefined ? held : others), ...secrets };
    const { certificates, privateKeyPem, authorities, proof } = held;
    if (certificates === undefined || privateKeyPem === undefined || authorities === undefined) {
      void confirm();
      continue;
    }
    yield {
      certificates,
      privateKeyPem,
      authorities,
      ...(proof === undefined ? {} : { proof }),
      confirm,
    };
  }
}

/** One response of the server: what it holds of a certificate with its key, and of a bundle. */
export type OfferedSecrets = {
  readonly secrets: Partial<FetchedSvid>;
  readonly confirm: OfferedSvid['confirm'];
};

/**
 * Asks for secrets over SDS, by their names, and gives each response; it ends when `signal` aborts.
 * @throws MeshError `server_unreachable`, `message_invalid`, or the code with which the server ended the stream
 */
export async function* offerSecrets(
  socket: string,
  names: readonly string[],
  signal: AbortSignal,
): AsyncGenerator<OfferedSecrets> {
  const client = new SecretDiscoveryServiceClient(`unix:${socket}`, credentials.createInsecure(), {
    'grpc.default_authority': 'countersign',
  });
  const call = client.streamSecrets();
  let isOver = false;
  const cancel = (): void => {
    isOver = true;
    call.cancel();
  };
  signal.addEventListener('abort', cancel);
  try {
    if (signal.aborted) return;
    call.write(requestOf([...names]));
    for await (const response of call as AsyncIterable<DiscoveryResponse>) {
      const { versionInfo, nonce: responseNonce } = response;
      const answer = { ...requestOf([...names]), node: undefined, versionInfo, responseNonce };
      const confirm = (): Promise<void> =>
        new Promise((resolve) => {
          if (isOver) resolve();
          else call.write(answer, () => resolve());
        });
      yield { secrets: readSecrets(response, names), confirm };
    }
    if (!signal.aborted) throw unreachable(socket, 'the server ended the stream');
  } catch (error) {
    if (signal.aborted) return;
    throw failureOf(error, socket);
  } finally {
    isOver = true;
    signal.removeEventListener('abort', cancel);
    call.on('error', () => undefined);
    call.cancel();
    client.close();
  }
}

function requestOf(resourceNames: string[]): DiscoveryRequest {
  return {
    versionInfo: '',
    node: {
      id: `countersign-cli-${process.pid}`,
      cluster: '',
      // One PEM in place of Envoy's own validator.
      metadata: { disable_spiffe_cert_validation: true, issuance_proof: true },
      locality: undefined,
      userAgentName: 'countersign',
      userAgentVersionType: undefined,
      clientFeatures: [],
    },
    resourceNames,
    typeUrl: secretTypeUrl,
    responseNonce: '',
    errorDetail: undefined,
  };
}

function readSecrets({ resources }: DiscoveryResponse, wanted: readonly string[]): Partial<FetchedSvid> {
  let found: Partial<FetchedSvid> = {};
  for (const { value } of resources) {
    const { name, type } = Secret.decode(value);
    if (!wanted.includes(name)) continue;
    if (type?.$case === 'tlsCertificate') {
      const { certificateChain, privateKey, signedCertificateTimestamp } = type.tlsCertificate;
      const [proof] = signedCertificateTimestamp;
      const [key, more] = decodePem(textOf(privateKey), 'PRIVATE KEY', limits);
      if (key === undefined || more !== undefined) throw unusable('several keys');
      found = {
        ...found,
        certificates: decodePem(textOf(certificateChain), 'CERTIFICATE', limits),
        privateKeyPem: encodePem('PRIVATE KEY', key),
        ...(proof === undefined ? {} : { proof: Buffer.from(textOf(proof), 'latin1').toString('utf8') }),
      };
    } else if (type?.$case === 'validationContext') {
      found = { ...found, authorities: authoritiesOf(type.validationContext) };
    }
  }
  return found;
}

function authoritiesOf(context: CertificateValidationContext): readonly Uint8Array[] {
  const typed = context.customValidatorConfig?.typedConfig;
  if (context.trustedCa !== undefined || typed === undefined) {
    return decodePem(textOf(context.trustedCa), 'CERTIFICATE', limits);
  }
  const [own, more] = SPIFFECertValidatorConfig.decode(typed.value).trustDomains;
  if (own === undefined || more !== undefined) throw unusable('bundles of several trust domains');
  return decodePem(textOf(own.trustBundle), 'CERTIFICATE', limits);
}

function textOf(source: DataSource | undefined): string {
  if (source?.specifier?.$case === 'inlineBytes') return source.specifier.inlineBytes.toString('latin1');
  if (source?.specifier?.$case === 'inlineString') return source.specifier.inlineString;
  throw unusable('no text');
}

/** What a failed call to the workload socket means: the code that the server named, or that it is out of reach. */
export function failureOf(error: unknown, socket: string): MeshError {
  if (error instanceof MeshError) return error;
  const { code, details, metadata } = error as { code?: number; details?: string; metadata?: Metadata };
  if (code === undefined) return unusable('a message that cannot be decoded', error);
  const named = metadata?.get(codeMetadataKey)[0];
  if (typeof named === 'string' && Object.hasOwn(errorKinds, named)) {
    return new MeshError(named as ErrorCode, details ?? 'the server ended the stream', { cause: error });
  }
  return unreachable(socket, plainDetails(details ?? 'the stream ended'), error);
}

function unreachable(socket: string, why: string, cause?: unknown): MeshError {
  const fix = why.includes('EACCES')
    ? `run chmod a+x on the directories above ${socket}, or put the socket elsewhere with workloadSocket`
    : why.startsWith('no answer within')
      ? 'a certificate that is owed may wait for the server: see countersign status'
      : 'start countersign up or agent, or name its socket with --workload-socket';
  return new MeshError('server_unreachable', `no answer from ${quote(socket)}: ${why}`, { fix, cause });
}

function unusable(what: string, cause?: unknown): MeshError {
  return new MeshError('message_invalid', `the server sent ${what}`, {
    fix: 'check that the socket is one of countersign',
    cause,
  });
}

const limits = { maxBytes: 4_194_304 };
