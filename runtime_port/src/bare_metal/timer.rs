//! Interrupt sources: the timer that preempts tasks, and the lines of the interrupt controller 8259.
//!
//! The timer is that of the local interrupt controller (Intel SDM vol. 3, 10.5.4), or, on a processor without one, the
//! interval timer 8254 through the controller 8259. Where there is both, the 8259 reaches the processor through the
//! local controller ("virtual wire", MultiProcessor Specification 3.6.2.1).

use super::{
    cpu, memory,
    time::{self, Reference},
};
use core::sync::atomic::{AtomicUsize, Ordering};
use kernel_config::bare_metal::{
    INTERVAL_TIMER_LINE, PIC_VECTOR, SERIAL_LINE, SPURIOUS_VECTOR, TICKS_PER_SECOND, TIMER_VECTOR,
};
use x86_64::{instructions::port::Port, registers::model_specific::Msr};

/// What ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TickSource {
    /// The timer of the local interrupt controller.
    LocalApic,
    /// The interval timer 8254.
    IntervalTimer,
}

/// Starts the timer interrupts and lets the serial port's through. Nothing arrives before interrupts are on.
///
/// # Safety
/// Once, on the boot processor, after the clock is calibrated; the kernel has gates for the vectors of `kernel_config::bare_metal`.
pub unsafe fn start() -> TickSource {
    // SAFETY: by the caller; nobody else uses the interrupt controllers.
    unsafe {
        match LocalApic::find() {
            Some(apic) => {
                set_up_pic(1 << SERIAL_LINE);
                apic.start();
                TickSource::LocalApic
            }
            None => {
                set_up_pic(1 << SERIAL_LINE | 1 << INTERVAL_TIMER_LINE);
                start_interval_timer();
                TickSource::IntervalTimer
            }
        }
    }
}

/// Tells the controller that sent it that an interrupt is being handled. To be called before tasks are switched.
pub fn acknowledge(vector: u8) {
    /// Not a specific one: the interrupt of the highest priority that is in service.
    const END_OF_INTERRUPT: u8 = 0x20;
    match vector {
        TIMER_VECTOR => {
            if let Some(apic) = LocalApic::in_use() {
                // SAFETY: an interrupt of this controller is in service.
                unsafe { apic.write(Register::EndOfInterrupt, 0) };
            }
        }
        // SAFETY: ports of the first 8259. Its line 7 is also what a request that went away arrives as.
        PIC_VECTOR..=PIC_LAST => unsafe {
            if vector != PIC_LAST || is_in_service(7) {
                Port::new(PIC_COMMAND).write(END_OF_INTERRUPT);
            }
        },
        _ => {}
    }
}

/// Has the interval timer tick again, if it was that which did: to be called last, from the entry of its vector.
pub fn arm_next(vector: u8) {
    if vector == PIC_VECTOR + INTERVAL_TIMER_LINE {
        // SAFETY: only a timer that was started interrupts, and nobody else uses it.
        unsafe { arm_interval_timer() };
    }
}

/// Sends this processor a non-maskable interrupt. Returns `false` when there is no local controller that could.
///
/// # Safety
/// The kernel handles it.
pub unsafe fn send_nmi() -> bool {
    /// Delivery mode NMI, level assert, destination: self (SDM vol. 3, figure 10-12).
    const NMI_TO_SELF: u32 = 4 << 8 | 1 << 14 | 1 << 18;
    // SAFETY: by the caller.
    LocalApic::in_use().is_some_and(|apic| unsafe {
        apic.write(Register::InterruptCommand, NMI_TO_SELF);
        true
    })
}

/// Registers of the local interrupt controller by offset (SDM vol. 3, table 10-1).
#[derive(Clone, Copy)]
#[repr(usize)]
enum Register {
    TaskPriority = 0x80,
    EndOfInterrupt = 0xb0,
    SpuriousVector = 0xf0,
    InterruptCommand = 0x300,
    Timer = 0x320,
    Line0 = 0x350,
    Line1 = 0x360,
    Error = 0x370,
    InitialCount = 0x380,
    CurrentCount = 0x390,
    Divide = 0x3e0,
}

/// How the registers are reached.
#[derive(Clone, Copy)]
enum LocalApic {
    /// At this address.
    Memory(usize),
    /// As model-specific registers (x2APIC mode, which only firmware can have switched on).
    Msr,
}

/// Address of the controller in use; 0: none, 1: by model-specific registers.
static IN_USE: AtomicUsize = AtomicUsize::new(0);

impl LocalApic {
    /// # Safety
    /// As [`start`].
    unsafe fn find() -> Option<Self> {
        /// IA32_APIC_BASE, its bits "EN" and "EXTD" (SDM vol. 3, figure 10-26), and its address.
        const APIC_BASE: u32 = 0x1b;
        const ENABLED: u64 = 1 << 11;
        const X2APIC: u64 = 1 << 10;
        const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
        if !cpu::has_apic() {
            return None;
        }
        let mut base = Msr::new(APIC_BASE);
        // SAFETY: a processor with an APIC has this register.
        let value = unsafe { base.read() };
        let this = if value & X2APIC != 0 {
            Self::Msr
        } else {
            // SAFETY: as above; the page holds the controller's registers and nothing else.
            unsafe {
                base.write(value | ENABLED);
                Self::Memory(memory::map_device(value & ADDRESS).ok()?)
            }
        };
        IN_USE.store(if let Self::Memory(address) = this { address } else { 1 }, Ordering::Relaxed);
        Some(this)
    }

    fn in_use() -> Option<Self> {
        match IN_USE.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Self::Msr),
            address => Some(Self::Memory(address)),
        }
    }

    /// # Safety
    /// As the register demands.
    unsafe fn write(self, register: Register, value: u32) {
        // SAFETY: mapped by `find`, or a register of x2APIC mode; the rest is the caller's.
        unsafe {
            match self {
                Self::Memory(address) => ((address + register as usize) as *mut u32).write_volatile(value),
                Self::Msr => Msr::new(0x800 + (register as u32 >> 4)).write(u64::from(value)),
            }
        }
    }

    /// # Safety
    /// The register can be read.
    unsafe fn read(self, register: Register) -> u32 {
        // SAFETY: as in `write`.
        unsafe {
            match self {
                Self::Memory(address) => ((address + register as usize) as *const u32).read_volatile(),
                Self::Msr => Msr::new(0x800 + (register as u32 >> 4)).read() as u32,
            }
        }
    }

    /// # Safety
    /// As [`start`].
    unsafe fn start(self) {
        const MASKED: u32 = 1 << 16;
        const PERIODIC: u32 = 1 << 17;
        const SOFTWARE_ENABLE: u32 = 1 << 8;
        /// Delivery modes.
        const EXTERNAL: u32 = 7 << 8;
        const NMI: u32 = 4 << 8;
        /// One count in 16 cycles of the bus clock.
        const BY_16: u32 = 3;
        // SAFETY: the documented way to set it up; by the caller for the rest.
        unsafe {
            self.write(Register::Timer, MASKED);
            self.write(Register::Error, MASKED);
            self.write(Register::TaskPriority, 0);
            self.write(Register::SpuriousVector, SOFTWARE_ENABLE | u32::from(SPURIOUS_VECTOR));
            self.write(Register::Line0, EXTERNAL);
            self.write(Register::Line1, NMI);
            self.write(Register::Divide, BY_16);
            let count = self.counts_per_tick();
            self.write(Register::Timer, PERIODIC | u32::from(TIMER_VECTOR));
            self.write(Register::InitialCount, count);
        }
    }

    /// Measures the timer against the clock.
    ///
    /// # Safety
    /// The timer is masked.
    unsafe fn counts_per_tick(self) -> u32 {
        struct CountDown(LocalApic);
        impl Reference for CountDown {
            fn read(&mut self) -> u64 {
                // SAFETY: the register can be read, and reading it has no effect.
                u64::from(u32::MAX - unsafe { self.0.read(Register::CurrentCount) })
            }
        }
        // SAFETY: a masked timer counts and does nothing else.
        unsafe { self.write(Register::InitialCount, u32::MAX) };
        let hz = time::counter_hz();
        // Two milliseconds. A timer that stands still ticks with whatever count.
        let (passed, counter) =
            time::compare(&mut CountDown(self), 32, &|_, counter| counter >= hz / 500).unwrap_or((1, 1));
        let per_tick = u128::from(passed) * u128::from(hz) / (u128::from(counter) * u128::from(TICKS_PER_SECOND));
        u32::try_from(per_tick).unwrap_or(u32::MAX).max(1)
    }
}

/// Ports of the first 8259.
const PIC_COMMAND: u16 = 0x20;
const PIC_DATA: u16 = 0x21;
const PIC_LAST: u8 = PIC_VECTOR + 7;

/// Sets both 8259 up (Intel 8259A data sheet, "Initialization Command Words"); only these lines of the first get through.
///
/// # Safety
/// Nobody else uses them. Where there is none the writes go nowhere.
unsafe fn set_up_pic(lines: u8) {
    let steps: [(u16, u8); 10] = [
        (PIC_COMMAND, 0x11), // initialisation in four words, cascaded
        (0xa0, 0x11),
        (PIC_DATA, PIC_VECTOR),
        (0xa1, PIC_VECTOR + 8),
        (PIC_DATA, 1 << 2), // the second one is at line 2
        (0xa1, 2),
        (PIC_DATA, 1), // 8086 mode
        (0xa1, 1),
        (PIC_DATA, !lines),
        (0xa1, 0xff),
    ];
    for (port, value) in steps {
        // SAFETY: by the caller.
        unsafe { Port::new(port).write(value) };
    }
}

/// Whether the first 8259 has an interrupt of this line in service.
///
/// # Safety
/// Nobody else uses it at the moment.
unsafe fn is_in_service(line: u8) -> bool {
    /// The next read gives the in-service register.
    const READ_IN_SERVICE: u8 = 0x0b;
    let mut command = Port::<u8>::new(PIC_COMMAND);
    // SAFETY: by the caller.
    unsafe {
        command.write(READ_IN_SERVICE);
        command.read() >> line & 1 == 1
    }
}

/// Has the interval timer tick once; the end of each tick's handling arms the next ([`arm_next`]). One that ticks by itself makes up for ticks that
/// came late, as emulators do whose host is busy: then the next tick is there when the handling of one ends, and a task whose turn is one tick
/// gets nothing done.
///
/// # Safety
/// Nobody else uses the interval timer.
unsafe fn start_interval_timer() {
    // SAFETY: channel 0, both bytes, mode 0 (interrupt on terminal count); by the caller.
    unsafe {
        Port::<u8>::new(0x43).write(0x30);
        arm_interval_timer();
    }
}

/// # Safety
/// As [`start_interval_timer`], which came before.
unsafe fn arm_interval_timer() {
    let [low, high] = ((time::PIT_HZ / TICKS_PER_SECOND) as u16).to_le_bytes();
    // SAFETY: by the caller. In mode 0 the count starts anew when both bytes are written.
    unsafe {
        let mut channel = Port::<u8>::new(0x40);
        channel.write(low);
        channel.write(high);
    }
}
