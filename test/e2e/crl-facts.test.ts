import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { listLifeSeconds, signRevocationList } from '../../src/ca/crl.ts';
import { openIssuer } from '../../src/ca/issuer.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { encodePem } from '../../src/spiffe/pem.ts';
import { makeKey, makeTestAuthority, type TestAuthority } from '../ca/test-authority.ts';
import { makeEnvoyBinary, startEnvoy } from '../harness/envoy.ts';
import { createScope } from '../harness/scope.ts';
import type { KeyPair } from '../harness/sds-client.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';
import { shakeHands } from '../harness/tls-client.ts';

// What a real Envoy does with lists: the facts that src/up-crl.ts is built on.
const scope = createScope();
afterAll(() => scope.close());

const names = ['current', 'whole chain', 'of another CA', 'expired', 'not begun'] as const;
type Name = (typeof names)[number];
let ports: Map<Name, number>;
let client: KeyPair;
const types = 'type.googleapis.com/envoy.extensions';

beforeAll(async () => {
  const now = new Date();
  const [ca, other] = await Promise.all([makeTestAuthority(now), makeTestAuthority(now)]);
  client = await pairOf(ca, now);
  const server = await pairOf(ca, now);
  const list = async ({ intermediate }: TestAuthority, at: Date): Promise<string> => {
    const issuer = openIssuer(intermediate.certificate, intermediate.key);
    return encodePem('X509 CRL', (await signRevocationList(issuer, { number: 1, entries: [], now: at })).der);
  };
  const lists = new Map<Name, string>([
    ['current', await list(ca, now)],
    ['whole chain', await list(ca, now)],
    ['of another CA', await list(other, now)],
    ['expired', await list(ca, new Date(now.getTime() - (listLifeSeconds + 60) * 1_000))],
    ['not begun', await list(ca, new Date(now.getTime() + 7_200_000))],
  ]);
  const free = await freePorts(names.length);
  ports = new Map(names.map((name, i) => [name, free[i] ?? 0]));
  const directory = join(makeTempDir(scope), 'envoy');
  mkdirSync(directory);
  const roots = [ca, other].map(({ root }) => encodePem('CERTIFICATE', root.certificate)).join('');
  const envoy = startEnvoy(scope, {
    name: 'facts',
    directory,
    binary: makeEnvoyBinary(directory),
    bootstrap: ({ admin }) =>
      JSON.stringify({
        node: { id: 'facts', cluster: 'facts' },
        admin: { address: { pipe: { path: admin, mode: 0o600 } } },
        static_resources: {
          listeners: names.map((name) => ({
            name,
            address: { socket_address: { address: '127.0.0.1', port_value: ports.get(name) } },
            filter_chains: [
              {
                transport_socket: {
                  name: 'envoy.transport_sockets.tls',
                  typed_config: {
                    '@type': `${types}.transport_sockets.tls.v3.DownstreamTlsContext`,
                    require_client_certificate: true,
                    common_tls_context: {
                      tls_params: { tls_minimum_protocol_version: 'TLSv1_3' },
                      tls_certificates: [
                        {
                          certificate_chain: { inline_string: server.cert },
                          private_key: { inline_string: server.key },
                        },
                      ],
                      validation_context: {
                        trusted_ca: { inline_string: roots },
                        crl: { inline_string: lists.get(name) },
                        only_verify_leaf_cert_crl: name !== 'whole chain',
                      },
                    },
                  },
                },
                filters: [
                  {
                    name: 'envoy.filters.network.http_connection_manager',
                    typed_config: {
                      '@type': `${types}.filters.network.http_connection_manager.v3.HttpConnectionManager`,
                      stat_prefix: 'facts',
                      route_config: {
                        virtual_hosts: [
                          {
                            name: 'all',
                            domains: ['*'],
                            routes: [{ match: { prefix: '/' }, direct_response: { status: 200 } }],
                          },
                        ],
                      },
                      http_filters: [
                        {
                          name: 'envoy.filters.http.router',
                          typed_config: { '@type': `${types}.filters.http.router.v3.Router` },
                        },
                      ],
                    },
                  },
                ],
              },
            ],
          })),
        },
      }),
  });
  await envoy.live();
}, 60_000);

async function pairOf({ authority }: TestAuthority, now: Date): Promise<KeyPair> {
  const key = makeKey('ec-prime256v1');
  const id = SpiffeId.parse(`spiffe://example.org/${randomBytes(4).toString('hex')}`);
  const request = { id, publicKey: key.spki, dnsNames: [], ttlSeconds: 3_600 };
  const { certificates } = await authority.sign(authority.prepare(request, now));
  return {
    cert: certificates.map((der) => encodePem('CERTIFICATE', der)).join(''),
    key: encodePem('PRIVATE KEY', key.pkcs8),
  };
}

test.each<[Name, boolean]>([
  ['current', true],
  // One of the CA that signs leaves is not enough without `only_verify_leaf_cert_crl`: the root would need one.
  ['whole chain', false],
  // With any list, a CA without one is refused.
  ['of another CA', false],
  ['expired', false],
  ['not begun', false],
])('with a list that is %s, a certificate that nobody revoked is taken: %s', async (name, accepted) => {
  expect((await shakeHands(ports.get(name) ?? 0, client)).accepted).toBe(accepted);
});
