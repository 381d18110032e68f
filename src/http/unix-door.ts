import type { Socket } from 'node:net';
import { openPeerCredentials } from '../grpc/peer-credentials.ts';
import type { Door } from './authenticate.ts';

/**
 * The door for this machine: the kernel says which uid connected, and root, the server's own uid and `adminUids` have
 * the role admin.
 * @throws MeshError `platform_unsupported`
 */
export async function openUnixDoor(adminUids: readonly number[]): Promise<Door> {
  const readPeer = await openPeerCredentials();
  const known = new WeakMap<Socket, number>();
  const ownUid = process.getuid?.();
  return {
    kind: 'unix',
    peerUid: (socket) => {
      const uid = known.get(socket) ?? readUid(socket);
      known.set(socket, uid);
      return uid;
    },
    adminUids: new Set([0, ...(ownUid === undefined ? [] : [ownUid]), ...adminUids]),
  };

  // The uid is the one at connect, which never changes: the process itself need not be held.
  function readUid(socket: Socket): number {
    const peer = readPeer(socket);
    peer.close();
    return peer.uid;
  }
}
