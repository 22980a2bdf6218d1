/** The records of a stream from front to back: what it is, its RAM, and where each device's state stands. */

import { isVmcorralError, type VmcorralError } from '../../../model/errors.js';
import { type ByteSource, bounded, corrupt, unsupported } from '../byte-source.js';
import { StreamCursor } from './cursor.js';
import { type DescribedDevice, type Description, findDescription } from './description.js';
import {
  COMMAND_NAMES,
  HARMLESS_COMMANDS,
  MAX_CAPABILITIES,
  MAX_MACHINE_TYPE_BYTES,
  MAX_SECTIONS,
  PAGE_BITS,
  RAM_SECTION,
  RAM_VERSION,
  Record as RecordType,
  STREAM_VERSION,
} from './layout.js';
import { RamSections } from './ram-section.js';

export interface DeviceSection extends DescribedDevice {
  readonly version: number;
  /** Of its body in the source. */
  readonly offset: number;
}

/** What of the devices could be read: `fits`: all; `none`: no description; `unusable`: it does not fit the sections. */
export type DescriptionState = 'fits' | 'none' | 'unusable';

export interface StreamContents {
  readonly version: number;
  /** As QEMU names it, e.g. `pc-q35-7.2`; machine types before 2.4 don't tell. */
  readonly machineType: string | undefined;
  readonly isMapped: boolean;
  readonly ram: RamSections;
  readonly devices: readonly DeviceSection[];
  readonly description: DescriptionState;
  /** Where the states of devices begin, if they could not be read. */
  readonly unreadFrom: number | undefined;
  /** The stream ends within its RAM: at least so many bytes would be needed. */
  readonly neededBytes: number | undefined;
}

/** @throws UNSUPPORTED by name, CORRUPT, TRUNCATED where not even the RAM blocks are there, CANCELLED */
export function readSections(source: ByteSource, cancelled: () => boolean): StreamContents {
  const walk = new SectionWalk(source, cancelled);
  walk.readHeader();
  const neededBytes = walk.readRam();
  if (neededBytes === undefined) walk.readDevices();
  return walk.contents(neededBytes);
}

class SectionWalk {
  readonly #source: ByteSource;
  readonly #cursor: StreamCursor;
  readonly #description: Description | undefined;
  readonly #devices: DeviceSection[] = [];
  #version = 0;
  #machineType: string | undefined;
  #isMapped = false;
  #ram: RamSections;
  #ramId = -1;
  #sectionId = -1;
  #sections = 0;
  /** RAM is complete: what is wrong from here on costs the devices only. */
  #isRamDone = false;
  #isEnd = false;
  #unreadFrom: number | undefined;

  constructor(source: ByteSource, cancelled: () => boolean) {
    this.#source = source;
    this.#cursor = new StreamCursor(source, cancelled);
    this.#ram = new RamSections(this.#cursor, false);
    this.#description = findDescription(source);
  }

  readHeader(): void {
    const cursor = this.#cursor;
    cursor.skip(4);
    this.#version = cursor.u32('the version of the stream');
    if (this.#version !== STREAM_VERSION) {
      const what = `is a QEMU migration stream of version ${this.#version}`;
      const hint = 'dump the guest with a QEMU of this millennium';
      throw unsupported(this.#source, what, hint, { offset: 4, expected: STREAM_VERSION });
    }
  }

  /** @returns size that the source should at least have, where it ends before all RAM was read */
  readRam(): number | undefined {
    try {
      while (!this.#isRamDone && !this.#isEnd) this.#readRecord();
    } catch (error) {
      // A mapped-ram file gets its bitmaps last: one that is cut may say of any page that it is zero.
      if (!isVmcorralError(error) || error.code !== 'TRUNCATED' || this.#isMapped) throw error;
      if (this.#ram.blocks.length === 0) throw error;
      return Number(error.facts.offset) + Number(error.facts.needed);
    }
    if (this.#isRamDone) return undefined;
    const offset = this.#cursor.position - 1;
    throw corrupt(this.#source, 'the stream ends before its RAM does', { offset, expected: 'the rest of its RAM' });
  }

  /** A description that does not fit costs the devices, not the memory: none of them is then believed. */
  readDevices(): void {
    const start = this.#cursor.position;
    try {
      while (this.#description !== undefined && !this.#isEnd) this.#readRecord();
      if (this.#cursor.position === this.#description?.offset) return;
    } catch (error) {
      if (!isVmcorralError(error) || (error.code !== 'CORRUPT' && error.code !== 'TRUNCATED')) throw error;
    }
    this.#devices.length = 0;
    this.#unreadFrom = start;
  }

  contents(neededBytes: number | undefined): StreamContents {
    const unusable = this.#unreadFrom !== undefined || neededBytes !== undefined;
    return {
      version: this.#version,
      machineType: this.#machineType,
      isMapped: this.#isMapped,
      ram: this.#ram,
      devices: this.#devices,
      description: this.#description === undefined ? 'none' : unusable ? 'unusable' : 'fits',
      unreadFrom: this.#unreadFrom,
      neededBytes,
    };
  }

  #readRecord(): void {
    const cursor = this.#cursor;
    const at = cursor.position;
    const type = cursor.u8('the next record of the stream');
    switch (type) {
      case RecordType.eof:
        this.#isEnd = true;
        return;
      case RecordType.configuration:
        this.#readConfiguration();
        return;
      case RecordType.sectionStart:
      case RecordType.sectionFull:
        this.#readSection(type);
        return;
      case RecordType.sectionPart:
      case RecordType.sectionEnd:
        this.#readPart(type);
        return;
      case RecordType.command:
        this.#readCommand();
        return;
      case RecordType.sectionFooter: {
        const id = cursor.u32('the footer of a section');
        if (id !== this.#sectionId)
          throw this.#unexpected(at, `the footer of section ${id}`, `that of ${this.#sectionId}`);
        return;
      }
      default:
        throw this.#unexpected(at, `a record of type 0x${type.toString(16)}`, 'a section, a command or the end');
    }
  }

  #unexpected(offset: number, what: string, expected: string): VmcorralError {
    return corrupt(this.#source, what, { offset, expected });
  }

  #readConfiguration(): void {
    const cursor = this.#cursor;
    const offset = cursor.position;
    const length = cursor.u32('the machine type');
    bounded(this.#source, length, 0, MAX_MACHINE_TYPE_BYTES, 'the length of the machine type', offset);
    this.#machineType = cursor.text(length, 'the machine type');
    for (let more = true; more; ) {
      const at = cursor.position;
      more = cursor.u8('the next record of the stream') === RecordType.subsection;
      if (more) this.#readConfigurationPart();
      else cursor.moveTo(at);
    }
  }

  #readConfigurationPart(): void {
    const cursor = this.#cursor;
    const at = cursor.position;
    const name = cursor.string('a part of the configuration');
    cursor.skip(4);
    if (name === 'configuration/capabilities') {
      this.#readCapabilities();
    } else if (name === 'configuration/target-page-bits') {
      const bits = cursor.u32('the page size');
      if (bits !== PAGE_BITS) throw this.#unsupported(`pages of ${2 ** (bits & 31)} bytes`, at, `${2 ** PAGE_BITS}`);
    } else if (name === 'configuration/uuid') {
      // Only with x-validate-uuid.
      cursor.skip(16);
    } else {
      throw this.#unsupported(`"${name}" in its configuration`, at, 'capabilities, page size and UUID only');
    }
  }

  #readCapabilities(): void {
    const cursor = this.#cursor;
    const at = cursor.position;
    const found = cursor.u32('capabilities');
    const count = bounded(this.#source, found, 0, MAX_CAPABILITIES, 'the number of capabilities', at);
    for (let i = 0; i < count; i++) {
      const name = cursor.string('the name of a capability');
      if (name === 'mapped-ram') this.#isMapped = true;
      else if (name === 'x-ignore-shared') {
        throw this.#unsupported('x-ignore-shared', at, 'memory that is shared with other processes, too');
      }
    }
    this.#ram = new RamSections(cursor, this.#isMapped);
  }

  #readSection(type: number): void {
    const cursor = this.#cursor;
    if (++this.#sections > MAX_SECTIONS) {
      throw this.#unexpected(cursor.position, 'one more section', `${MAX_SECTIONS} at most`);
    }
    this.#sectionId = cursor.u32('the header of a section');
    const name = cursor.string('the header of a section');
    const instance = cursor.u32('the header of a section');
    const version = cursor.u32('the header of a section');
    if (type === RecordType.sectionFull) {
      this.#skipDevice(name, instance, version);
      return;
    }
    if (name !== RAM_SECTION || version !== RAM_VERSION || this.#ramId >= 0) {
      const what = `a section "${name}" of version ${version}, whose length is not known`;
      throw this.#unsupported(what, cursor.position, `${RAM_SECTION} of version ${RAM_VERSION}, once`);
    }
    this.#ramId = this.#sectionId;
    this.#ram.readBody();
  }

  #readPart(type: number): void {
    const id = this.#cursor.u32('the header of a section');
    if (id !== this.#ramId) {
      throw this.#unexpected(this.#cursor.position - 4, `a part of section ${id}`, 'one that has begun');
    }
    this.#sectionId = id;
    this.#ram.readBody();
    if (type === RecordType.sectionEnd) this.#isRamDone = true;
  }

  #skipDevice(name: string, instance: number, version: number): void {
    const offset = this.#cursor.position;
    const described = this.#description?.find(name, instance);
    if (described === undefined) {
      if (this.#isRamDone) throw this.#unexpected(offset, `section "${name}"`, 'one that is described');
      throw this.#unsupported(`"${name}" before its RAM`, offset, 'a description that tells its length');
    }
    this.#devices.push({ ...described, version, offset });
    this.#cursor.skip(described.sizeBytes);
  }

  #readCommand(): void {
    const cursor = this.#cursor;
    const at = cursor.position;
    const command = cursor.u16('a command');
    cursor.skip(cursor.u16('a command'));
    if (HARMLESS_COMMANDS.includes(command)) return;
    throw this.#unsupported(
      `command ${command}: ${COMMAND_NAMES[command] ?? 'not known'}`,
      at,
      'none that moves pages',
    );
  }

  #unsupported(what: string, offset: number, expected: string): VmcorralError {
    const hint = 'dump the guest with `virsh dump`, best with --memory-only';
    return unsupported(this.#source, `is a QEMU migration stream with ${what}`, hint, { offset, expected });
  }
}
