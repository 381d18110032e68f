import { credentials, Metadata } from '@grpc/grpc-js';
import { MeshError } from '../errors.ts';
import { inspectChain } from '../spiffe/inspect-chain.ts';
import { SpiffeWorkloadAPIClient, type X509SVIDResponse } from '../wire/workload.ts';
import type { CheckResult } from './check-report.ts';
import { failed, ok } from './check-result.ts';
import { failureOf } from './svid-stream.ts';

/**
 * Calls the Workload API as this very process. That nobody has given it an identity proves as well that it was attested
 * and answered; a certificate is verified as a peer would.
 */
export async function checkWorkloadApi(socket: string, timeoutMs: number, now: Date): Promise<CheckResult> {
  const code = 'workload_api_answers';
  const text = 'the Workload API answers';
  try {
    const { svids } = await fetchOnce(socket, timeoutMs);
    const [first] = svids;
    if (first === undefined) return failed(code, text, 'it sent no certificate', seeLog);
    const chain = splitDer(first.x509Svid);
    const { broken } = inspectChain(chain, { authorities: splitDer(first.bundle), at: now });
    if (broken.length > 0) {
      const cause = `the certificate it sent does not verify: ${broken.map(({ message }) => message).join('; ')}`;
      return failed(code, text, cause, 'run countersign svid fetch, and check the clock of this machine');
    }
    return ok(code, `${text}; this process is ${first.spiffeId}`);
  } catch (error) {
    const failure = failureOf(error, socket);
    // Of the call, not of the process: whoever checks an installation is seldom one of its workloads.
    if (failure.code === 'identity_none') {
      return ok(code, `${text}; no entry gives this process an identity`);
    }
    if (failure.code === 'identity_banned') {
      return ok(code, `${text}; the identity of this process is banned`);
    }
    return failed(code, text, failure.message, failure.fix ?? seeLog);
  }
}

async function fetchOnce(socket: string, timeoutMs: number): Promise<X509SVIDResponse> {
  const client = new SpiffeWorkloadAPIClient(`unix:${socket}`, credentials.createInsecure(), {
    'grpc.default_authority': 'countersign',
  });
  const metadata = new Metadata();
  metadata.set('workload.spiffe.io', 'true');
  const call = client.fetchX509Svid({}, metadata, { deadline: Date.now() + timeoutMs });
  try {
    for await (const response of call as AsyncIterable<X509SVIDResponse>) return response;
    throw new MeshError('server_unreachable', 'the stream ended without an answer', { fix: seeLog });
  } finally {
    call.on('error', () => undefined);
    call.cancel();
    client.close();
  }
}

/** Takes DER objects apart that stand one behind the other. @throws MeshError `message_invalid` */
export function splitDer(bytes: Uint8Array): readonly Uint8Array[] {
  const found: Uint8Array[] = [];
  for (let at = 0; at < bytes.length;) {
    const first = bytes[at + 1] ?? 0;
    const lengthBytes = first < 0x80 ? 0 : first & 0x7f;
    if (lengthBytes > 3) throw notDer();
    let length = first < 0x80 ? first : 0;
    for (let i = 0; i < lengthBytes; i++) length = length * 256 + (bytes[at + 2 + i] ?? 0);
    const end = at + 2 + lengthBytes + length;
    if (end > bytes.length) throw notDer();
    found.push(bytes.subarray(at, end));
    at = end;
  }
  return found;
}

function notDer(): MeshError {
  return new MeshError('message_invalid', 'it sent certificates that are no DER', { fix: seeLog });
}

const seeLog = 'see the log of the process that owns the socket';
