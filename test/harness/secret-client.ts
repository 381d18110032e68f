import { X509Certificate } from 'node:crypto';
import { fetchKeyPair } from './sds-client.ts';

// A process of its own that asks for one certificate over SDS and prints whose it is, or `none` when it is given none.
const [socket = '', waitMs = '2000'] = process.argv.slice(2);
try {
  const { cert } = await fetchKeyPair(socket, 'default', Number(waitMs));
  console.log(new X509Certificate(cert).subjectAltName);
} catch {
  console.log('none');
}
