import { credentials, type ServiceError } from '@grpc/grpc-js';
import { SecretDiscoveryServiceClient } from '../../src/wire/sds.ts';
import { Secret } from '../../src/wire/tls.ts';
import type { Scope } from './scope.ts';

/** An SDS stream that stays open and acknowledges what it is sent. */
export type SecretStream = {
  /** The certificates it was sent, PEM, the oldest first. */
  readonly certificates: readonly string[];
  /** Answers with no secret in them: what the proxy has is taken from it. */
  readonly withdrawals: () => number;
  /** Why it ended; undefined while it is open. */
  readonly ended: () => string | undefined;
};

const typeUrl = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret';

/** Asks for one certificate as this very process and goes on listening until the scope ends. */
export function followSecret(scope: Scope, socket: string, name = 'default'): SecretStream {
  const client = new SecretDiscoveryServiceClient(`unix:${socket}`, credentials.createInsecure(), {
    'grpc.default_authority': 'countersign',
    'grpc.use_local_subchannel_pool': 1,
  });
  const stream = client.streamSecrets();
  const certificates: string[] = [];
  let withdrawals = 0;
  let ended: string | undefined;
  const say = (versionInfo: string, responseNonce: string): void => {
    const request = { node: undefined, resourceNames: [name], typeUrl, errorDetail: undefined };
    stream.write({ ...request, versionInfo, responseNonce });
  };
  stream.on('data', ({ resources, versionInfo, nonce }) => {
    if (resources.length === 0) withdrawals += 1;
    for (const { value } of resources) certificates.push(certificateOf(value));
    say(versionInfo, nonce);
  });
  stream.on('error', ({ code, details }: ServiceError) => (ended ??= `${code} ${details}`));
  stream.on('end', () => (ended ??= 'end'));
  say('', '');
  scope.defer(() => {
    stream.cancel();
    client.close();
  });
  return { certificates, withdrawals: () => withdrawals, ended: () => ended };
}

function certificateOf(secret: Uint8Array): string {
  const { type } = Secret.decode(secret);
  const source = type?.$case === 'tlsCertificate' ? type.tlsCertificate.certificateChain : undefined;
  if (source?.specifier?.$case !== 'inlineBytes') throw new Error('the secret holds no certificate');
  return source.specifier.inlineBytes.toString('utf8');
}
