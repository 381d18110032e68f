import type { NamedCertificate, NamedCertificates } from '../identity/revoked.ts';
import type { Database } from './database.ts';
import type { KeyOwner, NamedQuestion } from './protocol.ts';

/** The certificates somebody names that are valid at `nowMs`, each once, and the serials nobody here ever gave out. */
export function readNamed(
  db: Database,
  { spiffeIds, serials, keys, seen = [], nowMs }: NamedQuestion,
): NamedCertificates {
  type Row = {
    serial: string;
    spiffe_id: string;
    spki_sha256: string;
    issuer_key_id: string;
    not_after_ms: number;
  };
  const found = new Map<string, NamedCertificate>();
  const select = 'SELECT serial, spiffe_id, spki_sha256, issuer_key_id, not_after_ms FROM certificates';
  const take = (where: string, values: readonly string[]): void => {
    const rows = db.prepare<[string, number], Row>(`${select} WHERE ${where} AND not_after_ms > ?`);
    for (const value of values) {
      for (const row of rows.iterate(value, nowMs)) {
        found.set(row.serial, {
          serial: row.serial,
          spiffeId: row.spiffe_id,
          spkiSha256: row.spki_sha256,
          issuerKeyId: row.issuer_key_id,
          notAfter: new Date(row.not_after_ms),
        });
      }
    }
  };
  take('spiffe_id = ?', spiffeIds);
  take('serial = ?', serials);
  // As the partial index has it, or SQLite could not use it.
  take("spki_sha256 <> '' AND spki_sha256 = ?", keys);
  const issued = db
    .prepare<[string], number>("SELECT 1 FROM audit_leaves WHERE serial = ? AND type = 'issuance' LIMIT 1")
    .pluck();
  const leafOf = db
    .prepare<[string], Uint8Array>(
      "SELECT leaf FROM audit_leaves WHERE serial = ? AND type = 'issuance' LIMIT 1",
    )
    .pluck();
  return {
    certificates: [...found.values()],
    copied: seen.filter(({ serial, tbsSha256 }) => isOther(leafOf.get(serial), tbsSha256)),
    unknownSerials: serials.filter((serial) => !found.has(serial) && issued.get(serial) === undefined),
  };
}

/** INVARIANT: of contents that are kept no longer nothing is said. */
function isOther(leaf: Uint8Array | undefined, tbsSha256: string): boolean {
  if (leaf === undefined || tbsSha256 === '') return false;
  const issued = JSON.parse(new TextDecoder().decode(leaf)) as { readonly tbsSha256?: unknown };
  return typeof issued.tbsSha256 === 'string' && issued.tbsSha256 !== tbsSha256;
}

/** Who was given a certificate for which key: those valid at `nowMs`, the last to expire at the end, 65,536 at most. */
export function readKeyOwners(db: Database, nowMs: number): readonly KeyOwner[] {
  const latest = `SELECT spki_sha256, spiffe_id FROM certificates
    WHERE spki_sha256 <> '' AND not_after_ms > ? ORDER BY not_after_ms DESC LIMIT 65536`;
  return (db.prepare<[number]>(latest).raw().all(nowMs) as KeyOwner[]).reverse();
}
