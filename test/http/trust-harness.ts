import 'reflect-metadata';
import { generateKeyPairSync, randomBytes, webcrypto } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { request } from 'node:https';
import { connect as connectPlain } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import * as x509 from '@peculiar/x509';
import type { TurnedAway } from '../../src/http/connection-limit.ts';
import type { TlsListener } from '../../src/http/listener.ts';
import type { OldestTls } from '../../src/http/tls-settings.ts';
import type { TrustAnswer } from '../../src/http/trust-app.ts';
import { createTrustDocuments } from '../../src/http/trust-documents.ts';
import { listenTrust, type TrustLimits } from '../../src/http/trust-listener.ts';
import { createTrustRate, type TrustRates } from '../../src/http/trust-rate.ts';
import { bundlePem, type TrustBundle } from '../../src/spiffe/bundle.ts';
import type { JwtBundle } from '../../src/spiffe/jwt-bundle.ts';
import { encodePem } from '../../src/spiffe/pem.ts';
import { createAuthority, type TestAuthority } from '../xds/certificates.ts';
import { type ManualClock, manualClock } from '../harness/manual-clock.ts';

export const endpointId = 'spiffe://example.org/countersign/trust-endpoint';
export const issuer = 'https://localhost/tokens';

export type Pair = { readonly certificate: string; readonly privateKey: string };

/** A trust endpoint on a real socket, and all that a test may want to move. */
export type TrustHarness = {
  readonly authority: TestAuthority;
  readonly listener: TlsListener;
  readonly port: number;
  readonly caPem: string;
  readonly clock: ManualClock;
  readonly answers: TrustAnswer[];
  readonly turnedAway: TurnedAway[];
  readonly failures: unknown[];
  /** Replaced to publish other keys. */
  readonly keys: { x509: TrustBundle; jwt: JwtBundle };
  readonly ask: (ask: TrustAsk) => Promise<TrustReply>;
  /** A connection that is past its handshake. */
  readonly dial: (from?: string) => Promise<TLSSocket>;
  /** Sends bytes and returns what came back until the end. */
  readonly raw: (text: string, from?: string) => Promise<string>;
};

export type TrustAsk = {
  readonly path: string;
  readonly method?: string;
  readonly headers?: Record<string, string | string[]>;
  readonly body?: string;
  readonly from?: string;
};
export type TrustReply = {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  // oxlint-disable-next-line typescript/no-explicit-any -- tests look into answers freely
  readonly json: any;
};

/** A trust bundle with one key for tokens, made of real keys. */
export function jwtBundleOf(
  authority: TestAuthority,
  sequence = 1,
): JwtBundle & { readonly key: Uint8Array } {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const keyId = randomBytes(8).toString('hex');
  const spki = new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }));
  return {
    trustDomain: authority.trustDomain,
    authorities: [{ keyId, publicKey: spki }],
    sequence,
    key: new Uint8Array(privateKey.export({ format: 'der', type: 'pkcs8' })),
  };
}

export async function startTrust(
  options: {
    readonly limits?: Partial<TrustLimits>;
    readonly rates?: TrustRates;
    readonly issuer?: string | null;
    readonly oldestTls?: OldestTls;
    readonly pair?: Pair;
    readonly documents?: Parameters<typeof listenTrust>[0]['ports']['documents'];
    readonly jwt?: JwtBundle;
    readonly authority?: TestAuthority;
    readonly port?: number;
    readonly witness?: Parameters<typeof listenTrust>[0]['ports']['witness'];
  } = {},
): Promise<TrustHarness> {
  const authority = options.authority ?? (await createAuthority('example.org'));
  const clock = manualClock();
  const [answers, turnedAway, failures]: [TrustAnswer[], TurnedAway[], unknown[]] = [[], [], []];
  const keys: TrustHarness['keys'] = {
    x509: authority.bundle,
    jwt: options.jwt ?? jwtBundleOf(authority),
  };
  const listener = await listenTrust({
    at: { host: '127.0.0.1', port: options.port ?? 0 },
    ...(options.pair ?? (await spiffePair(authority))),
    oldestTls: options.oldestTls ?? 'TLSv1.3',
    ...(options.limits === undefined ? {} : { limits: options.limits }),
    ports: {
      documents:
        options.documents ??
        createTrustDocuments({
          x509: () => keys.x509,
          jwt: () => keys.jwt,
          issuer: options.issuer === undefined ? issuer : options.issuer,
          refreshHintSeconds: 300,
        }),
      maxAgeSeconds: 300,
      takeTurn: createTrustRate(clock, options.rates),
      witness: options.witness ?? null,
      answered: (answer) => answers.push(answer),
      reportFailure: (_id, error) => failures.push(error),
      randomBytes: (size) => new Uint8Array(randomBytes(size)),
    },
    turnedAway: (why) => turnedAway.push(why),
  });
  const port = Number(listener.address.split(':').at(-1));
  const caPem = bundlePem(authority.bundle);
  const target = { host: '127.0.0.1', port, ca: caPem, checkServerIdentity: () => undefined };
  const dial = (from = '127.0.0.1'): Promise<TLSSocket> =>
    new Promise((resolve, reject) => {
      const plain = connectPlain({ host: '127.0.0.1', port, localAddress: from });
      plain.on('error', reject);
      const socket = connect({ ...target, socket: plain });
      socket.setTimeout(15_000, () => socket.destroy(new Error('nothing happened')));
      socket.once('error', reject);
      socket.once('secureConnect', () => {
        socket.on('error', () => undefined);
        resolve(socket);
      });
    });
  return {
    keys,
    authority,
    listener,
    port,
    caPem,
    clock,
    answers,
    turnedAway,
    failures,
    ask: (ask) => askOver({ ...target, agent: false, localAddress: ask.from ?? '127.0.0.1' }, ask),
    dial,
    raw: async (text, from) => {
      const socket = await dial(from);
      const chunks: Buffer[] = [];
      socket.on('data', (chunk: Buffer) => chunks.push(chunk));
      const closed = new Promise((resolve) => socket.once('close', resolve));
      socket.write(text, 'latin1');
      await closed;
      return Buffer.concat(chunks).toString('latin1');
    },
  };
}

export function askOver(
  target: object,
  { path, method = 'GET', headers = {}, body }: TrustAsk,
): Promise<TrustReply> {
  return new Promise((resolve, reject) => {
    const options = { ...target, path, method, headers: { host: 'localhost', ...headers } };
    const sent = request(options, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString('utf8');
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          text,
          json: text.startsWith('{') ? JSON.parse(text) : undefined,
        });
      });
    });
    sent.setTimeout(10_000, () => sent.destroy(new Error('no answer')));
    sent.on('error', reject);
    sent.end(body);
  });
}

/** An X509-SVID of the endpoint. */
export async function spiffePair(authority: TestAuthority, id = endpointId): Promise<Pair> {
  const svid = await authority.issue(id);
  return {
    certificate: svid.certificates.map((der) => encodePem('CERTIFICATE', der)).join(''),
    privateKey: encodePem('PRIVATE KEY', svid.privateKey),
  };
}

/** A self-signed certificate of the web, for `localhost`. */
export async function webPair(kind: 'ec' | 'rsa' = 'ec', days = 1): Promise<Pair> {
  x509.cryptoProvider.set(webcrypto);
  const algorithm =
    kind === 'ec'
      ? { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
      : {
          name: 'RSASSA-PKCS1-v1_5',
          modulusLength: 2_048,
          publicExponent: new Uint8Array([1, 0, 1]),
          hash: 'SHA-256',
        };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const now = Date.now();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: randomBytes(8).toString('hex').replace(/^./, '1'),
    name: 'CN=web',
    notBefore: new Date(now - 86_400_000 * 2),
    notAfter: new Date(now + 86_400_000 * days),
    keys,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.SubjectAlternativeNameExtension([
        { type: 'dns', value: 'localhost' },
        { type: 'ip', value: '127.0.0.1' },
      ]),
    ],
  });
  const pkcs8 = new Uint8Array(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey));
  return {
    certificate: encodePem('CERTIFICATE', new Uint8Array(certificate.rawData)),
    privateKey: encodePem('PRIVATE KEY', pkcs8),
  };
}
