mod disks;
