//! Atomic numbers that a dev build can afford.
//!
//! Without optimisation each load and store of [`core::sync::atomic`] is two calls and a search for the ordering: 19 to 27
//! instructions where one would do, and the steady pair has more than a hundred of them. A program under development is
//! compiled so, and we with it. So on x86_64 such builds have types of their own, whose loads and stores are that one
//! instruction; everything else about them, and every other build, is the standard library's.

pub use core::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicPtr, Ordering, compiler_fence, fence};

#[cfg(not(all(debug_assertions, target_arch = "x86_64", not(miri))))]
pub use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize};

#[cfg(all(debug_assertions, target_arch = "x86_64", not(miri)))]
pub use direct::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize};

#[cfg(all(debug_assertions, target_arch = "x86_64", not(miri)))]
mod direct {
    use core::arch::asm;
    use core::ops::Deref;
    use core::sync::atomic::Ordering;

    /// A type whose loads and stores are single instructions. `$load` and `$store` are those, for a register of the
    /// class `$class` and the pointer.
    macro_rules! direct {
        ($name:ident, $value:ty, $class:ident, $load:literal, $store:literal) => {
            /// The type of this name in [`core::sync::atomic`], with short loads and stores.
            #[derive(Debug, Default)]
            #[repr(transparent)]
            pub struct $name(core::sync::atomic::$name);

            impl $name {
                /// As that type's.
                #[inline(always)]
                pub const fn new(value: $value) -> Self {
                    $name(core::sync::atomic::$name::new(value))
                }

                /// As that type's: an ordinary load of this processor acquires, whatever is asked for.
                #[inline(always)]
                pub fn load(&self, _: Ordering) -> $value {
                    let value: $value;
                    // SAFETY: the reference is to an aligned number of this size that may be read by any thread at any time;
                    // the instruction reads it as a whole. It may have effects for all that the compiler knows, so that
                    // nothing moves across it.
                    unsafe {
                        asm!($load, value = out($class) value, place = in(reg) self, options(nostack, preserves_flags));
                    }
                    value
                }

                /// As that type's: an ordinary store of this processor releases.
                #[inline(always)]
                pub fn store(&self, value: $value, order: Ordering) {
                    if matches!(order, Ordering::SeqCst) {
                        return self.0.store(value, order);
                    }
                    // SAFETY: as above; the number may be written through a shared reference, because it lies in the cell
                    // that the standard library's type is.
                    unsafe {
                        asm!($store, value = in($class) value, place = in(reg) self, options(nostack, preserves_flags));
                    }
                }
            }

            impl Deref for $name {
                type Target = core::sync::atomic::$name;

                #[inline(always)]
                fn deref(&self) -> &Self::Target {
                    &self.0
                }
            }
        };
    }

    direct!(AtomicU8, u8, reg_byte, "mov {value}, byte ptr [{place}]", "mov byte ptr [{place}], {value}");
    direct!(AtomicU16, u16, reg, "mov {value:x}, word ptr [{place}]", "mov word ptr [{place}], {value:x}");
    direct!(AtomicU32, u32, reg, "mov {value:e}, dword ptr [{place}]", "mov dword ptr [{place}], {value:e}");
    direct!(AtomicU64, u64, reg, "mov {value}, qword ptr [{place}]", "mov qword ptr [{place}], {value}");
    direct!(AtomicUsize, usize, reg, "mov {value}, qword ptr [{place}]", "mov qword ptr [{place}], {value}");
}

#[cfg(test)]
mod tests {
    use super::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};

    /// What is beside the number in memory stays as it was.
    #[repr(C)]
    struct Between<T> {
        before: T,
        number: T,
        after: T,
    }

    macro_rules! holds {
        ($name:ident, $value:ty) => {
            let place = Between { before: $name::new(7), number: $name::new(0), after: $name::new(9) };
            for value in [1, <$value>::MAX, <$value>::MAX / 3, 0] {
                for order in [Ordering::Relaxed, Ordering::Release, Ordering::SeqCst] {
                    place.number.store(value, order);
                    for order in [Ordering::Relaxed, Ordering::Acquire, Ordering::SeqCst] {
                        assert_eq!(place.number.load(order), value, "{}", stringify!($name));
                    }
                    assert_eq!(place.number.swap(0, Ordering::AcqRel), value, "{}", stringify!($name));
                    place.number.store(value, order);
                }
            }
            let beside = (place.before.load(Ordering::Relaxed), place.after.load(Ordering::Relaxed));
            assert_eq!(beside, (7, 9), "{}", stringify!($name));
        };
    }

    #[test]
    fn a_number_is_loaded_and_stored_whole_and_alone() {
        holds!(AtomicU8, u8);
        holds!(AtomicU16, u16);
        holds!(AtomicU32, u32);
        holds!(AtomicU64, u64);
        holds!(AtomicUsize, usize);
    }

    #[test]
    fn who_sees_the_flag_sees_what_was_stored_before_it() {
        const TURNS: u64 = 1_000;
        static VALUE: AtomicU64 = AtomicU64::new(0);
        static FLAG: AtomicU32 = AtomicU32::new(0);
        let writer = std::thread::spawn(|| {
            for turn in 1..=TURNS {
                VALUE.store(turn, Ordering::Relaxed);
                FLAG.store(1, Ordering::Release);
                while FLAG.load(Ordering::Acquire) != 0 {
                    std::thread::yield_now();
                }
            }
        });
        for turn in 1..=TURNS {
            while FLAG.load(Ordering::Acquire) == 0 {
                std::thread::yield_now();
            }
            assert_eq!(VALUE.load(Ordering::Relaxed), turn);
            FLAG.store(0, Ordering::Release);
        }
        assert!(writer.join().is_ok(), "the writer does not panic");
    }
}
