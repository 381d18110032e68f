import { BinaryWriter } from '@bufbuild/protobuf/wire';
import type { RegistrationEntry } from '../identity/entry.ts';
import type { NodeView, ViewDelta } from '../identity/view.ts';
import { View, ViewUpdate } from '../wire/node.ts';
import { deltaToWire, entriesToWire, viewToWire } from './view-wire.ts';

/** The bytes of a `ViewUpdate` with the full view. */
export type EncodeView = (view: NodeView) => Buffer;

/**
 * Encodes full views. What many nodes have in common is encoded once: the entries of those who have the same, and all
 * that is not entries for everybody.
 */
export function createViewEncoder(): EncodeView {
  const entriesOf = new WeakMap<NodeView['mesh']['entries'], Uint8Array>();
  let last: { readonly view: NodeView; readonly bytes: Uint8Array } | undefined;
  return (view) => {
    const { entries } = view.mesh;
    let own = entriesOf.get(entries);
    if (own === undefined) entriesOf.set(entries, (own = encodeEntries(entries)));
    if (last === undefined || !isSame(last.view, view)) {
      const rest = viewToWire({ ...view, mesh: { ...view.mesh, entries: new Map() } });
      last = { view, bytes: View.encode(rest).finish() };
    }
    // A message is the same as its parts one after the other, and the fields of one may stand in any order.
    const { bytes } = last;
    const head = new BinaryWriter()
      .uint32(fullTag)
      .uint32(bytes.length + own.length)
      .finish();
    return Buffer.concat([head, bytes, own]);
  };
}

/** The bytes of a `ViewUpdate` with a delta. */
export function encodeDelta(delta: ViewDelta): Buffer {
  const update: ViewUpdate = { kind: { $case: 'delta', delta: deltaToWire(delta) } };
  return Buffer.from(ViewUpdate.encode(update).finish());
}

function encodeEntries(entries: ReadonlyMap<string, RegistrationEntry>): Uint8Array {
  return View.encode({ ...nothing, entries: entriesToWire(entries) }).finish();
}

/** Whether all but the entries is the same. */
function isSame(a: NodeView, b: NodeView): boolean {
  const { entries: _a, ...meshOfA } = a.mesh;
  const { entries: _b, ...meshOfB } = b.mesh;
  return isShallowlySame({ ...a, mesh: null }, { ...b, mesh: null }) && isShallowlySame(meshOfA, meshOfB);
}

function isShallowlySame(a: object, b: object): boolean {
  const [own, other] = [new Map(Object.entries(a)), new Map(Object.entries(b))];
  return own.size === other.size && [...own].every(([name, value]) => isEqual(value, other.get(name)));
}

function isEqual(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  // Lists, and small records in them, are made anew at each look.
  if (Array.isArray(a) && Array.isArray(b))
    return a.length === b.length && a.every((one, at) => isEqual(one, b[at]));
  return isRecord(a) && isRecord(b) && isShallowlySame(a, b);
}

function isRecord(value: unknown): value is object {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}

const nothing: View = viewOfNothing();

function viewOfNothing(): View {
  return View.decode(new Uint8Array(0));
}

// Field 1 of ViewUpdate, with a length.
const fullTag = 10;
