/**
 * A guest's definition as libvirt gives it: what matters to a capture, and a copy without secrets. Parsed strictly;
 * what isn't well-formed isn't passed on.
 *
 * References: libvirt's formatdomain documentation.
 */

import { SaxesParser, type SaxesTagPlain } from 'saxes';
import { VmcorralError } from '../../src/model/errors.js';
import { scrubAttribute, scrubsText, scrubText } from './secrets.js';

/** libvirt's own limit for a definition over RPC is 4 MiB of text. */
const LARGEST_XML = 4 * 1024 * 1024;
const DEEPEST = 64;

export interface DomainFacts {
  /** `kvm`, `qemu`, … */
  readonly type: string;
  /** e.g. `pc-q35-7.2`; empty when not given. */
  readonly machine: string;
  /** `sev`, `sev-snp`, `tdx`, `s390-pv`, …: memory is encrypted. */
  readonly launchSecurity?: string;
  readonly panicDevices: readonly string[];
  readonly vmcoreinfo: boolean;
  /** libvirt's default is `destroy`. */
  readonly onCrash: string;
  readonly watchdogAction?: string;
  /** Number of host devices passed through. */
  readonly hostDevices: number;
  /** KiB of video memory, which QEMU writes into a dump too. */
  readonly videoKiB: number;
  /** Files with what the first serial port or console printed. */
  readonly consoleFiles: readonly string[];
}

type Mutable = {
  -readonly [K in keyof DomainFacts]: DomainFacts[K] extends readonly string[] ? string[] : DomainFacts[K];
};
type Attributes = Readonly<Record<string, string>>;

/**
 * @returns facts and the XML anew, secrets replaced by `removed`
 * @throws CORRUPT for what isn't well-formed or is absurdly large or deep
 */
export function readDomainXml(xml: string): { facts: DomainFacts; scrubbed: string } {
  if (xml.length > LARGEST_XML) throw bad(`it has ${xml.length} characters`);
  const facts: Mutable = {
    type: '',
    machine: '',
    panicDevices: [],
    vmcoreinfo: false,
    onCrash: 'destroy',
    hostDevices: 0,
    videoKiB: 0,
    consoleFiles: [],
  };
  const path: string[] = [];
  const out: string[] = [];
  const parser = new SaxesParser();
  parser.on('error', (error) => {
    throw bad(error.message);
  });
  parser.on('doctype', () => {
    throw bad('it has a document type');
  });
  parser.on('opentag', (tag: SaxesTagPlain) => {
    if (path.length >= DEEPEST) throw bad(`it is nested deeper than ${DEEPEST}`);
    path.push(tag.name);
    noteElement(facts, path, tag.attributes);
    out.push(openTag(tag, path));
  });
  parser.on('closetag', (tag: SaxesTagPlain) => {
    path.pop();
    if (!tag.isSelfClosing) out.push(`</${tag.name}>`);
  });
  const onText = (text: string) => {
    noteText(facts, path, text);
    out.push(text.trim() !== '' && scrubsText(path) ? 'removed' : escapeText(scrubText(path, text)));
  };
  parser.on('text', onText);
  parser.on('cdata', onText);
  parser.write(xml).close();
  return { facts, scrubbed: out.join('') };
}

function openTag(tag: SaxesTagPlain, path: readonly string[]): string {
  const attributes = Object.entries(tag.attributes)
    .map(([name, value]) => ` ${name}='${escapeAttribute(scrubAttribute(path, name, value))}'`)
    .join('');
  return `<${tag.name}${attributes}${tag.isSelfClosing ? '/' : ''}>`;
}

function noteElement(facts: Mutable, path: readonly string[], attributes: Attributes): void {
  switch (path.slice(0, 4).join('/')) {
    case 'domain':
      facts.type = attributes.type ?? '';
      return;
    case 'domain/os/type':
      facts.machine = attributes.machine ?? '';
      return;
    case 'domain/launchSecurity':
      facts.launchSecurity = attributes.type ?? 'unknown';
      return;
    case 'domain/features/vmcoreinfo':
      facts.vmcoreinfo = attributes.state !== 'off';
      return;
    case 'domain/devices/panic':
      facts.panicDevices.push(attributes.model ?? 'default');
      return;
    case 'domain/devices/watchdog':
      facts.watchdogAction = attributes.action ?? 'reset';
      return;
    case 'domain/devices/hostdev':
      facts.hostDevices++;
      return;
    case 'domain/devices/video/model':
      for (const name of ['ram', 'vram', 'vram64'] as const) facts.videoKiB += kib(attributes[name]);
      return;
    case 'domain/devices/serial/log':
    case 'domain/devices/console/log':
      noteConsole(facts, attributes.file);
      return;
    case 'domain/devices/serial/source':
    case 'domain/devices/console/source':
      noteConsole(facts, attributes.path);
  }
}

/** Every path of a serial port comes here, sockets and terminals too; who reads takes regular files only. */
function noteConsole(facts: Mutable, file: string | undefined): void {
  if (file && !facts.consoleFiles.includes(file)) facts.consoleFiles.push(file);
}

function noteText(facts: Mutable, path: readonly string[], text: string): void {
  if (path.length === 2 && path[1] === 'on_crash') facts.onCrash = text.trim();
}

function kib(text: string | undefined): number {
  const value = Number(text ?? 0);
  return Number.isSafeInteger(value) && value > 0 ? Math.min(value, 1 << 30) : 0;
}

function escapeText(text: string): string {
  return text.replace(/[&<>\r]/g, (c) => `&#${c.charCodeAt(0)};`);
}

function escapeAttribute(text: string): string {
  return text.replace(/[&<>'"\r\n\t]/g, (c) => `&#${c.charCodeAt(0)};`);
}

function bad(why: string): VmcorralError {
  return new VmcorralError('CORRUPT', `the guest's definition is not usable XML: ${why}`, {
    hint: '`virsh dumpxml GUEST` shows what libvirt has',
  });
}
