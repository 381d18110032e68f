// Holds many SDS streams over a few connections and acknowledges all it is sent. Told to by its parent, it says when
// each stream got what it got. A process of its own, so that its work is not the server's.
import { connect, constants, type ClientHttp2Session } from 'node:http2';
import { connect as connectSocket } from 'node:net';
import { DiscoveryRequest, DiscoveryResponse } from '../../src/wire/discovery.ts';
import { SecretDiscoveryServiceService } from '../../src/wire/sds.ts';
import { secretTypeUrl } from '../../src/xds/secret.ts';

const [socket = '', streams = '1', connections = '1', id = ''] = process.argv.slice(2);
const { path } = SecretDiscoveryServiceService.streamSecrets;

/** When each stream last got a response, and when it ended. */
let [received, ended]: [number[], number[]] = [[], []];

process.on('message', (message: 'open' | 'mark' | 'report') => {
  if (message === 'open') open();
  else if (message === 'mark') [received, ended] = [[], []];
  else process.send?.({ received, ended });
});
process.on('disconnect', () => process.exit());
process.send?.('ready');

function open(): void {
  const sessions = Array.from({ length: Number(connections) }, () =>
    connect('http://countersign', { createConnection: () => connectSocket(socket) }),
  );
  for (let i = 0; i < Number(streams); i++) openStream(sessions[i % sessions.length] as ClientHttp2Session);
}

function openStream(session: ClientHttp2Session): void {
  const stream = session.request({
    [constants.HTTP2_HEADER_METHOD]: 'POST',
    [constants.HTTP2_HEADER_PATH]: path,
    [constants.HTTP2_HEADER_CONTENT_TYPE]: 'application/grpc',
    [constants.HTTP2_HEADER_TE]: 'trailers',
  });
  let rest: Buffer = Buffer.alloc(0);
  const send = (versionInfo: string, responseNonce: string): void => {
    stream.write(
      frame({
        versionInfo,
        node: undefined,
        resourceNames: [id],
        typeUrl: secretTypeUrl,
        responseNonce,
        errorDetail: undefined,
      }),
    );
  };
  stream.on('data', (chunk: Buffer) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (rest.length >= 5 && rest.length >= 5 + rest.readUInt32BE(1)) {
      const end = 5 + rest.readUInt32BE(1);
      const { versionInfo, nonce } = DiscoveryResponse.decode(rest.subarray(5, end));
      rest = rest.subarray(end);
      received.push(Date.now());
      send(versionInfo, nonce);
    }
  });
  stream.on('error', () => undefined);
  stream.on('end', () => {
    ended.push(Date.now());
    stream.close();
  });
  send('', '');
}

function frame(request: DiscoveryRequest): Buffer {
  const body = DiscoveryRequest.encode(request).finish();
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.length, 1);
  return Buffer.concat([head, body]);
}
