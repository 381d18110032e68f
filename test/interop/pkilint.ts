import { pythonWith } from './python-packages.ts';

/** DigiCert's linter with its RFC 5280 set. @returns its Python; undefined where it cannot be had, which in CI is an error */
export function installPkilint(): string | undefined {
  return pythonWith('pkilint-0.13.3', [
    'pkilint==0.13.3',
    'cffi==2.1.1',
    'cryptography==50.0.2',
    'iso3166==3.0.0',
    'iso4217==1.16.20260101',
    'publicsuffixlist==1.1.2.20261023',
    'pyasn1==0.6.5',
    'pyasn1-alt-modules==0.4.10',
    'pyasn1-fasder==0.1.3',
    'pycparser==3.12',
    'python-dateutil==4.0.0',
    'python-iso639==2026.7.23',
    'tzdata==2026.6',
    'validators==0.22.0',
  ]);
}
