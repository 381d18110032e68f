import { credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import { type JWTSVIDResponse, SpiffeWorkloadAPIClient } from '../wire/workload.ts';
import { failureOf } from './svid-stream.ts';

/** What token to ask for, and where. */
export type TokenSource = {
  readonly socket: string;
  /** Empty for every identity of this process. */
  readonly spiffeId: string;
  readonly audience: readonly string[];
};

/** A token as the socket gave it. */
export type FetchedToken = { readonly spiffeId: string; readonly token: string; readonly hint: string };

/**
 * Fetches tokens over the Workload API, as this very process; the default identity's is first.
 * @throws MeshError `server_unreachable`, or the code with which the server refused
 */
export async function fetchTokens(
  { socket, spiffeId, audience }: TokenSource,
  timeoutMs: number,
): Promise<readonly FetchedToken[]> {
  const client = new SpiffeWorkloadAPIClient(`unix:${socket}`, credentials.createInsecure(), {
    'grpc.default_authority': 'countersign',
  });
  const metadata = new Metadata();
  metadata.set('workload.spiffe.io', 'true');
  try {
    const { svids } = await new Promise<JWTSVIDResponse>((resolve, reject) => {
      client.fetchJwtsvid(
        { audience: [...audience], spiffeId },
        metadata,
        { deadline: Date.now() + timeoutMs },
        (error: ServiceError | null, response) => (error === null ? resolve(response) : reject(error)),
      );
    });
    return svids.map(({ spiffeId: id, svid, hint }) => ({ spiffeId: id, token: svid, hint }));
  } catch (error) {
    throw failureOf(error, socket);
  } finally {
    client.close();
  }
}
