import type { StoredAuthority } from '../ca/stored.ts';
import type { CoverageChange, CoverageRow, IssuedCertificate } from '../identity/coverage.ts';
import { DerReader } from '../spiffe/der.ts';
import type { Database } from './database.ts';

/** Stores authorities by key ID, new ones and changed ones; others stay. Inside the caller's transaction. */
export function storeAuthorities(db: Database, authorities: readonly StoredAuthority[]): void {
  const put = db.prepare(
    `INSERT INTO authorities
       (key_id, kind, root_key_id, certificate, not_before_ms, not_after_ms, state, tainted, published_in, offline,
        upstream)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
  );
  // INVARIANT: at no moment are two of a kind active. REPLACE would delete the other one instead of refusing.
  const take = db.prepare('DELETE FROM authorities WHERE key_id = ?');
  for (const { keyId } of authorities) take.run(keyId);
  for (const slot of authorities) {
    put.run(
      slot.keyId,
      slot.kind,
      slot.rootKeyId,
      slot.certificate,
      slot.notBefore.getTime(),
      slot.notAfter.getTime(),
      slot.state,
      slot.tainted ? 1 : 0,
      slot.publishedIn,
      slot.offline ? 1 : 0,
      Buffer.concat(slot.upstream),
    );
  }
}

/** All authorities, the oldest first. */
export function readAuthorities(db: Database): readonly StoredAuthority[] {
  type Row = Pick<StoredAuthority, 'kind' | 'state'> & {
    key_id: string;
    root_key_id: string;
    certificate: Buffer;
    not_before_ms: number;
    not_after_ms: number;
    tainted: number;
    published_in: number;
    offline: number;
    upstream: Buffer;
  };
  return db
    .prepare<[], Row>('SELECT * FROM authorities ORDER BY not_before_ms, kind DESC, key_id')
    .all()
    .map((row) => ({
      kind: row.kind,
      keyId: row.key_id,
      rootKeyId: row.root_key_id,
      certificate: new Uint8Array(row.certificate),
      notBefore: new Date(row.not_before_ms),
      notAfter: new Date(row.not_after_ms),
      state: row.state,
      tainted: row.tainted === 1,
      publishedIn: row.published_in,
      offline: row.offline === 1,
      upstream: splitDer(row.upstream),
    }));
}

/** Elements that were written one behind the other. */
function splitDer(bytes: Uint8Array): readonly Uint8Array[] {
  const reader = DerReader.over(new Uint8Array(bytes));
  const elements: Uint8Array[] = [];
  while (reader.peek() !== undefined) elements.push(new Uint8Array(reader.element()));
  return elements;
}

/** Stores what proxies have confirmed, inside the caller's transaction. */
export function storeCoverage(db: Database, { put, remove }: CoverageChange): void {
  const insert = db.prepare('INSERT OR REPLACE INTO coverage (key, record) VALUES (?, ?)');
  for (const { key, record } of put) insert.run(key, record);
  const drop = db.prepare('DELETE FROM coverage WHERE key = ?');
  for (const key of remove) drop.run(key);
}

export function readCoverage(db: Database): readonly CoverageRow[] {
  return db.prepare<[], CoverageRow>('SELECT key, record FROM coverage ORDER BY key').all();
}

/** Every certificate issued and not yet expired at `nowMs`. */
export function readUnexpired(db: Database, nowMs: number): readonly IssuedCertificate[] {
  type Row = {
    serial: string;
    spiffe_id: string;
    entry_id: string;
    issuer_key_id: string;
    not_after_ms: number;
  };
  return db
    .prepare<[number], Row>(
      'SELECT serial, spiffe_id, entry_id, issuer_key_id, not_after_ms FROM certificates WHERE not_after_ms > ?',
    )
    .all(nowMs)
    .map((row) => ({
      serial: row.serial,
      spiffeId: row.spiffe_id,
      entryId: row.entry_id,
      issuerKeyId: row.issuer_key_id,
      notAfter: new Date(row.not_after_ms),
    }));
}
