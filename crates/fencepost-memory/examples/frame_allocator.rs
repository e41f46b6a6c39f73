//! The memory of a game loop: everything that lives for one frame is put into an arena, which is reset at the end of it.
//! `cargo run -p fencepost-memory --example frame_allocator`
//!
//! After the first frames no memory is asked of the system any more, and freeing a frame is one store. What lives longer
//! than a frame lies elsewhere: the world in a vector whose elements never move, so that the frame may point to them.

use fencepost_memory::MemoryError;
use fencepost_memory::growing::{Arena, GrowVec, Options};

struct Ship {
    position: [f32; 2],
    speed: [f32; 2],
}

/// What the renderer is to do. Points into the world and into the frame.
enum Command<'frame> {
    Ship(&'frame Ship),
    Label(&'frame str),
}

/// One frame: moves the world, then makes the list of commands in the arena.
fn frame<'frame>(
    number: usize,
    world: &'frame mut GrowVec<Ship>,
    arena: &'frame Arena,
) -> Result<&'frame [Command<'frame>], MemoryError> {
    for ship in world.iter_mut() {
        ship.position[0] += ship.speed[0];
        ship.position[1] += ship.speed[1];
    }
    let world: &'frame [Ship] = world.as_slice();
    let seen = (0..world.len()).filter(|index| !(index + number).is_multiple_of(3)).count();
    let label = arena.alloc_str(&format!("frame {number}: {seen} ships"))?;
    let commands = arena.alloc_slice_with(seen + 1, |index| match world.get(index) {
        Some(ship) if index < seen => Command::Ship(ship),
        _ => Command::Label(label),
    })?;
    Ok(commands)
}

fn render(commands: &[Command<'_>]) -> f32 {
    commands
        .iter()
        .map(|command| match command {
            Command::Ship(ship) => ship.position[0] + ship.position[1],
            Command::Label(text) => text.len() as f32,
        })
        .sum()
}

/// Runs the loop, and shows that its memory does not grow.
pub fn main() -> Result<(), MemoryError> {
    let mut world = GrowVec::reserve(1_000_000)?;
    for n in 0..10_000_u16 {
        let n = f32::from(n);
        world.push(Ship { position: [n, -n], speed: [0.5, 0.25] })?;
    }
    // 256 MiB of addresses are the most that a frame may ever take. In a debug build last frame's memory traps.
    let mut arena = Options::new(256 << 20).name("frames").strict(cfg!(debug_assertions)).arena()?;
    let (mut drawn, mut most) = (0.0, 0);
    for number in 0..60 {
        drawn += render(frame(number, &mut world, &arena)?);
        most = most.max(arena.used());
        arena.reset();
        assert_eq!(arena.used(), 0, "the frame is gone");
    }
    println!(
        "drawn {drawn}; a frame took at most {most} bytes of an arena of {} MiB of addresses",
        arena.bound() >> 20
    );
    assert!(arena.committed() <= 2 * most + (256 << 10), "memory is that of the largest frame");
    Ok(())
}
