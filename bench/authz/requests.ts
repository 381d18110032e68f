import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import { checkBytes, encodeCertificate } from '../../test/ext-authz/check-input.ts';

/** Of the destination that all policies apply to. */
export const ledger = 'spiffe://mesh.test/ns/pay/sa/ledger';

/** The document of the i-th policy: every tenth denies, the others name a caller, methods and paths of their own. */
export function policyDocument(i: number): object {
  const rule =
    i % 10 === 9
      ? { to: [{ operation: { paths: [`/internal/${i}/*`], methods: ['POST', 'PUT'] } }] }
      : {
          from: [{ source: { principals: [`mesh.test/${callerOf(i)}`] } }],
          to: [
            { operation: { methods: ['GET', 'POST'], paths: [`/v1/accounts/${i}`, `/v1/orders/${i}/*`] } },
          ],
        };
  return {
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name: `p${i}`, namespace: 'pay' },
    spec: { action: i % 10 === 9 ? 'DENY' : 'ALLOW', rules: [rule] },
  };
}

/**
 * Requests as Envoy sends them with the bootstrap of ours: raw headers, the caller's certificate, what TLS asked for. One
 * in eight is allowed by no rule.
 */
export async function makeRequests(count: number, policies: number): Promise<readonly Buffer[]> {
  x509.cryptoProvider.set(globalThis.crypto);
  const made: Buffer[] = [];
  for (let i = 0; i < count; i++) {
    const policy = ((i * 7_919) % (policies / 10)) * 10 + (i % 9);
    const principal = `spiffe://mesh.test/${callerOf(policy)}`;
    const [method, path] = [i % 8 === 7 ? 'DELETE' : 'GET', `/v1/orders/${policy}/items?page=${i}`];
    made.push(
      checkBytes({
        principal,
        certificate: encodeCertificate(await makeCertificate(principal)),
        destination: ledger,
        destinationAddress: { host: '10.0.0.2', port: 8_080 },
        method,
        path,
        host: 'ledger.pay:8080',
        rawHeaders: [
          [':method', method],
          [':path', path],
          [':authority', 'ledger.pay:8080'],
          ...otherHeaders,
        ],
      }),
    );
  }
  return made;
}

const otherHeaders: readonly (readonly [string, string])[] = [
  [':scheme', 'https'],
  ['user-agent', 'grpc-go/1.74.2'],
  ['accept', 'application/json, text/plain;q=0.9, */*;q=0.8'],
  ['accept-encoding', 'gzip, deflate, br'],
  ['content-type', 'application/json'],
  ['x-request-id', '7c9e6679-7425-40de-944b-e07fc1f90ae7'],
  ['x-forwarded-proto', 'https'],
  ['x-forwarded-for', '10.0.0.1'],
  ['x-envoy-expected-rq-timeout-ms', '15000'],
  ['traceparent', '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'],
  ['cookie', 'session=0123456789abcdef0123456789abcdef; theme=dark'],
];

function callerOf(i: number): string {
  return `ns/team-${i % 97}/sa/svc-${i}`;
}

async function makeCertificate(principal: string): Promise<string> {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const made = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: '0102',
    name: 'CN=test',
    keys,
    signingAlgorithm: algorithm,
    extensions: [new x509.SubjectAlternativeNameExtension([{ type: 'url', value: principal }])],
  });
  return made.toString('pem');
}
