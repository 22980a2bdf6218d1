import { describe, expect, test } from 'vitest';
import { readDomainXml } from '#adapters/kvm/domain-xml.js';

/** A definition with every place known to hold a secret; each secret is `hush` with a number. */
const WITH_SECRETS = `<domain type='kvm' id='3' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web &lt;01&gt;
../x</name>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <cmdline>console=ttyS0 root=/dev/vda admin_password=hush1 luks.key=hush2 inst.repo=http://u:hush3@host/x quiet</cmdline></os>
  <sysinfo type='fwcfg'><entry name='opt/com.coreos/config'>{"hush4":1}</entry></sysinfo>
  <sysinfo type='smbios'><system><entry name='serial'>SER1</entry></system>
    <oemStrings><entry>io.systemd.credential:passwd.hashed=hush5</entry></oemStrings></sysinfo>
  <features><acpi/><vmcoreinfo state='on'/></features>
  <on_crash>preserve</on_crash>
  <launchSecurity type='sev'><policy>0x3</policy><session>hush6</session><dhCert>hush7</dhCert></launchSecurity>
  <devices>
    <disk type='network'><source protocol='https' name='x'><cookies><cookie name='a'>hush8</cookie></cookies></source>
      <auth username='bob'><secret type='ceph' uuid='hush9'/></auth></disk>
    <graphics type='vnc' passwd='hush10'><listen type='address' address='127.0.0.1'/></graphics>
    <serial type='pty'><log file='/var/log/g &amp; co.log' append='off'/><source path='/dev/pts/3'/></serial>
    <console type='file'><source path='/tmp/second.log'/></console>
    <panic model='isa'/><watchdog model='i6300esb' action='reset'/>
    <hostdev mode='subsystem' type='pci'/><video><model type='qxl' ram='65536' vram='65536' vgamem='16384'/></video>
  </devices>
  <qemu:commandline><qemu:arg value='-object'/><qemu:arg value='secret,id=s0,data=hush11'/>
    <qemu:arg value='-device'/><qemu:arg value='pvpanic-pci'/><qemu:env name='TOKEN' value='hush12'/></qemu:commandline>
</domain>`;

describe('a definition', () => {
  const { facts, scrubbed } = readDomainXml(WITH_SECRETS);

  test('is handed on without any of its secrets', () => {
    expect(scrubbed.match(/hush\d+/g) ?? []).toEqual([]);
  });

  test('keeps what is not secret, and stays well-formed with the same names', () => {
    for (const kept of [
      'SER1',
      'pvpanic-pci',
      "username='bob'",
      'root=/dev/vda',
      'quiet',
      '127.0.0.1',
      '0x3',
      'qemu:env',
    ]) {
      expect(scrubbed).toContain(kept);
    }
    const again = readDomainXml(scrubbed);
    expect(again.facts).toEqual(facts);
    expect(again.scrubbed).toBe(scrubbed);
    expect(scrubbed).toContain('<name>web &#60;01&#62;\n../x</name>');
  });

  test('tells what matters to a capture', () => {
    expect(facts).toEqual({
      type: 'kvm',
      machine: 'pc-q35-7.2',
      launchSecurity: 'sev',
      panicDevices: ['isa'],
      vmcoreinfo: true,
      onCrash: 'preserve',
      watchdogAction: 'reset',
      hostDevices: 1,
      videoKiB: 131072,
      consoleFiles: ['/var/log/g & co.log', '/dev/pts/3', '/tmp/second.log'],
    });
  });

  test('without on_crash, vmcoreinfo and panic device gets the defaults of libvirt', () => {
    expect(readDomainXml("<domain type='qemu'><features/></domain>").facts).toMatchObject({
      onCrash: 'destroy',
      vmcoreinfo: false,
      panicDevices: [],
    });
  });
});

describe('a definition that is refused as CORRUPT', () => {
  test.each([
    ['cut short', "<domain type='kvm'><devices>"],
    ['closed in the wrong order', '<domain><a><b></a></b></domain>'],
    ['with an entity of its own', '<!DOCTYPE d [<!ENTITY a "b">]><domain>&a;</domain>'],
    ['with an unknown entity', '<domain>&nope;</domain>'],
    ['with a control character', '<domain>\u0001</domain>'],
    ['nested too deep', `${'<a>'.repeat(100)}${'</a>'.repeat(100)}`],
    ['too large', `<domain>${' '.repeat(5 << 20)}</domain>`],
    ['empty', ''],
  ])('%s', (_name, xml) => {
    expect(() => readDomainXml(xml)).toThrow(expect.objectContaining({ code: 'CORRUPT' }));
  });
});
