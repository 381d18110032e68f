import { closeSync, openSync, readSync } from 'node:fs';
import { MeshError, quote } from '../errors.ts';

/**
 * Reads a text file, which must be UTF-8. Of one that is too large, or that never ends, no more is read than shows it.
 * @param from a path, or a file descriptor
 * @throws MeshError `file_missing`, `file_permissions`, `input_unreadable`, `document_too_large`
 */
export function readText(from: string | number, name: string, maxBytes = maxTextBytes): string {
  const bytes = readBytes(from, name, maxBytes);
  try {
    // Fatal: bytes that are replaced on the way are not what the author wrote. The mark stays for the reader to refuse.
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new MeshError('input_unreadable', `${quote(name)} is not UTF-8 text`, {
      fix: 'save it as UTF-8',
      cause,
    });
  }
}

function readBytes(from: string | number, name: string, maxBytes: number): Buffer {
  try {
    const bytes = readAtMost(from, maxBytes);
    if (bytes !== undefined) return bytes;
  } catch (cause) {
    throw unreadable(name, cause);
  }
  throw new MeshError('document_too_large', `${quote(name)} is larger than ${maxBytes} bytes`, {
    fix: 'check the path, or split it into several files',
  });
}

/** Undefined when there is more. */
function readAtMost(from: string | number, maxBytes: number): Buffer | undefined {
  const descriptor = typeof from === 'number' ? from : openSync(from, 'r');
  try {
    const chunk = Buffer.allocUnsafe(chunkBytes);
    const pieces: Buffer[] = [];
    let size = 0;
    for (;;) {
      const read = readWaiting(descriptor, chunk);
      if (read === 0) return Buffer.concat(pieces);
      size += read;
      if (size > maxBytes) return undefined;
      // A copy: a pipe gives as little at a time as is written to it, and each piece would keep a chunk of its own.
      pieces.push(Buffer.from(chunk.subarray(0, read)));
    }
  } finally {
    if (descriptor !== from) closeSync(descriptor);
  }
}

/** A pipe that has nothing yet may say so instead of waiting: whether it does is for all processes that share it. */
function readWaiting(descriptor: number, into: Buffer): number {
  for (;;) {
    try {
      return readSync(descriptor, into);
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== 'EAGAIN') throw cause;
      Atomics.wait(nothing, 0, 0, pauseMs);
    }
  }
}

function unreadable(name: string, cause: unknown): MeshError {
  const { code } = cause as NodeJS.ErrnoException;
  if (code === 'EACCES' || code === 'EPERM') {
    return new MeshError('file_permissions', `may not read ${quote(name)}`, {
      fix: 'check its owner and mode',
      cause,
    });
  }
  const isDirectory = code === 'EISDIR';
  const why = code === 'ENOENT' ? 'does not exist' : isDirectory ? 'is a directory' : 'cannot be read';
  return new MeshError('file_missing', `${quote(name)} ${why}`, {
    fix: isDirectory ? 'name the files in it' : 'check the path',
    cause,
  });
}

/** Enough for every bundle, proof and token that is read whole. */
const maxTextBytes = 16_777_216;
const chunkBytes = 65_536;
const nothing = new Int32Array(new SharedArrayBuffer(4));
const pauseMs = 5;
