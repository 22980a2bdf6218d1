/** What can be said about a capture before it starts, and the small evidence beside it. */

import type { Assessment, Evidence } from '../../src/hypervisor/hypervisor.js';
import { toVmcorralError } from '../../src/model/errors.js';
import type { RawVersions } from './calls.js';
import { isLocalUri, LIBVIRT_METHOD } from './capture.js';
import type { LibvirtConnection } from './connection.js';
import { readConsoleTail } from './console-tail.js';
import { type DomainFacts, readDomainXml } from './domain-xml.js';
import { guestState } from './guest-state.js';

/** ELF headers and notes (2 KiB a processor), firmware and option ROMs, which QEMU writes too. */
const FIXED_MARGIN = 32 * 1024 * 1024;
const BYTES_PER_CPU = 4096;

export async function assessGuest(connection: LibvirtConnection, uuid: string): Promise<Assessment> {
  const [guest, xml] = await Promise.all([
    connection.call('lookup', { by: 'uuid', value: uuid }, { guest: uuid }),
    connection.call('xml', { uuid }, { guest: uuid }),
  ]);
  const { facts } = readDomainXml(xml);
  const imageBytes =
    (Math.max(guest.maxMemory, guest.memory) + facts.videoKiB) * 1024 + guest.cpus * BYTES_PER_CPU + FIXED_MARGIN;
  const refusal = refusalOf(facts, guestState(guest).state === 'shutoff', connection.uri);
  return {
    method: LIBVIRT_METHOD.name,
    imageBytes,
    ...(refusal === undefined ? {} : { refusal }),
    warnings: warningsOf(facts),
  };
}

function refusalOf(facts: DomainFacts, off: boolean, uri: string): string | undefined {
  if (facts.launchSecurity !== undefined) {
    return `its memory is encrypted (launchSecurity ${facts.launchSecurity}): a dump would hold nothing readable`;
  }
  if (off) return 'it is shut off: it has no memory';
  if (!isLocalUri(uri)) return `libvirt at ${uri} would write the dump on that host, not here`;
  return undefined;
}

function warningsOf(facts: DomainFacts): string[] {
  const warnings: string[] = [];
  if (facts.panicDevices.length === 0) {
    warnings.push("no panic device: a panic gives no event; add <panic model='isa'/> (x86) to the definition");
  }
  if (!facts.vmcoreinfo) {
    warnings.push("no vmcoreinfo device: some readers need it; add <vmcoreinfo state='on'/> to <features>");
  }
  if (facts.onCrash.startsWith('coredump-')) {
    warnings.push(
      `on_crash is ${facts.onCrash}: libvirt dumps by itself and then ends the crashed guest; use preserve`,
    );
  } else if (facts.onCrash !== 'preserve') {
    warnings.push(`on_crash is ${facts.onCrash}: a panic leaves no time to take the memory; use preserve`);
  }
  if (facts.watchdogAction && ['reset', 'shutdown', 'poweroff'].includes(facts.watchdogAction)) {
    warnings.push(`the watchdog's action is ${facts.watchdogAction}: it destroys the evidence; use pause`);
  }
  if (facts.hostDevices > 0) {
    warnings.push(`${facts.hostDevices} host devices are passed through: they may write memory while it is taken`);
  }
  return warnings;
}

export async function collectEvidence(connection: LibvirtConnection, uuid: string): Promise<Evidence> {
  const xml = await connection.call('xml', { uuid }, { guest: uuid });
  const warnings: string[] = [];
  const versions = await connection.call('versions', null).then(versionWords, (error: unknown) => {
    warnings.push(`versions: ${toVmcorralError(error).message}`);
    return {};
  });
  try {
    const { facts, scrubbed } = readDomainXml(xml);
    const console = isLocalUri(connection.uri) ? await readConsoleTail(facts.consoleFiles) : undefined;
    if (!console) warnings.push('no console log: libvirt keeps one with <log file=…/> in <serial>');
    return {
      definition: { name: 'guest.xml', text: scrubbed },
      ...(console ? { console } : {}),
      machine: facts.machine,
      versions,
      warnings,
    };
  } catch (error) {
    return { machine: '', versions, warnings: [...warnings, toVmcorralError(error).message] };
  }
}

function versionWords(raw: RawVersions): Record<string, string> {
  return {
    libvirt: versionText(raw.daemon),
    'libvirt client': versionText(raw.client),
    ...(raw.hypervisor > 0 ? { [raw.driver]: versionText(raw.hypervisor) } : {}),
  };
}

/** libvirt's form: 1000000 * major + 1000 * minor + release */
function versionText(version: number): string {
  return `${Math.floor(version / 1_000_000)}.${Math.floor(version / 1000) % 1000}.${version % 1000}`;
}
