import { MeshError } from '../errors.ts';
import { DerReader, derTag, hexOf, latin1 } from './der.ts';

/**
 * A DER Name as text, such as `O=Countersign, CN=root`, in the order it is written. For people only: two different
 * names may give the same text. Empty for an empty name.
 * @see RFC 4514
 */
export function describeName(name: Uint8Array): string {
  try {
    const outer = DerReader.over(name).enter(derTag.sequence);
    const parts: string[] = [];
    while (outer.peek() !== undefined) {
      const set = outer.enter(derTag.set);
      const attributes: string[] = [];
      while (set.peek() !== undefined) attributes.push(describeAttribute(set.enter(derTag.sequence)));
      parts.push(attributes.join('+'));
    }
    return parts.join(', ');
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    return `unreadable ${hexOf(name.subarray(0, 32))}`;
  }
}

function describeAttribute(attribute: DerReader): string {
  const oid = attribute.oid();
  const tag = attribute.peek() ?? 0;
  const content = attribute.content(tag);
  const text = tag === utf8String ? Buffer.from(content).toString('utf8') : latin1(content);
  return `${shortNames.get(oid) ?? oid}=${text.replace(/[,+"\\<>;=]/g, '\\$&')}`;
}

const utf8String = 0x0c;
const shortNames: ReadonlyMap<string, string> = new Map([
  ['2.5.4.3', 'CN'],
  ['2.5.4.5', 'serialNumber'],
  ['2.5.4.6', 'C'],
  ['2.5.4.7', 'L'],
  ['2.5.4.8', 'ST'],
  ['2.5.4.10', 'O'],
  ['2.5.4.11', 'OU'],
  ['2.5.4.45', 'x500UniqueIdentifier'],
]);
