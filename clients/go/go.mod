module pgentralocal

go 1.22
