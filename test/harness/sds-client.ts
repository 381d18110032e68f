import { credentials } from '@grpc/grpc-js';
import type { DataSource } from '../../src/wire/core.ts';
import { SecretDiscoveryServiceClient } from '../../src/wire/sds.ts';
import { Secret } from '../../src/wire/tls.ts';

/** A key and its certificates, PEM. */
export type KeyPair = { readonly key: string; readonly cert: string };

/** Asks for one certificate over SDS as this very process, and leaves. */
export function fetchKeyPair(socket: string, name = 'default', timeoutMs = 15_000): Promise<KeyPair> {
  const client = new SecretDiscoveryServiceClient(`unix:${socket}`, credentials.createInsecure(), {
    'grpc.default_authority': 'countersign',
  });
  const deadline = Date.now() + timeoutMs;
  return new Promise<KeyPair>((resolve, reject) => {
    const stream = client.streamSecrets({ deadline } as never);
    stream.on('error', reject);
    stream.on('data', ({ resources }: { resources: { value: Uint8Array }[] }) => {
      for (const { value } of resources) {
        const { name: given, type } = Secret.decode(value);
        if (given !== name || type?.$case !== 'tlsCertificate') continue;
        const { certificateChain, privateKey } = type.tlsCertificate;
        resolve({ cert: textOf(certificateChain), key: textOf(privateKey) });
        stream.cancel();
      }
    });
    stream.write({
      versionInfo: '',
      node: undefined,
      resourceNames: [name],
      typeUrl: 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret',
      responseNonce: '',
      errorDetail: undefined,
    });
  }).finally(() => client.close());
}

function textOf(source: DataSource | undefined): string {
  if (source?.specifier?.$case === 'inlineBytes') return source.specifier.inlineBytes.toString('utf8');
  if (source?.specifier?.$case === 'inlineString') return source.specifier.inlineString;
  throw new Error('the secret holds its text nowhere');
}
