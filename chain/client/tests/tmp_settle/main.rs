#![allow(dead_code)]
mod book;
mod exposure;
mod schedule;
